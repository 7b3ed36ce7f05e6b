"""Histograms and moments, against NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training_health.tensor_statistics import packed_statistics, relative_change, unpack


def statistics(tensor: torch.Tensor, bins: int = 8):
    return unpack(packed_statistics(tensor, bins).tolist(), bins)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    bins=st.integers(1, 64),
    strange=st.lists(st.sampled_from([torch.nan, torch.inf, -torch.inf]), max_size=3),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 9),
)
def test_the_finite_elements_agree_with_numpy(shape, bins, strange, dtype, seed):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    tensor = torch.cat([torch.tensor(strange, dtype=dtype), values.flatten()])

    found = statistics(tensor, bins)

    expected = values.double().numpy()
    _, edges = np.histogram(expected, bins=bins)
    assert (found.finite, found.nonfinite) == (values.numel(), len(strange))
    assert (found.minimum, found.maximum) == (expected.min(), expected.max())
    assert found.total == pytest.approx(expected.sum(), abs=1e-6)
    assert found.squares == pytest.approx((expected**2).sum())
    assert sum(found.counts) == values.numel()
    if values.numel() > 1:  # NumPy widens the range of equal elements otherwise
        assert found.limits == pytest.approx(edges[1:].tolist(), abs=1e-6)


def test_a_large_tensor_agrees_with_numpy_and_so_does_its_change():
    before = torch.randn(3, 50_001, generator=torch.Generator().manual_seed(0))
    after = before * 1.25

    found = statistics(before, 64)

    expected = before.double().numpy()
    counts, _ = np.histogram(expected, bins=64)
    assert np.abs(np.array(found.counts) - counts).sum() <= 4  # to rounding
    assert (found.total, found.squares) == pytest.approx((expected.sum(), (expected**2).sum()))
    assert relative_change(before, after).item() == pytest.approx(0.25)


def test_numbers_of_one_byte_are_read():
    found = statistics(torch.tensor([-1.5, 0.0, 4.0]).to(torch.float8_e4m3fn), 2)

    assert (found.minimum, found.maximum, found.total, list(found.counts)) == (-1.5, 4.0, 2.5, [2, 1])


@pytest.mark.parametrize("tensor", [torch.full((5,), torch.nan), torch.empty(0, 3)])
def test_nothing_finite_is_no_histogram(tensor):
    found = statistics(tensor)

    assert (found.finite, found.nonfinite, sum(found.counts)) == (0, tensor.numel(), 0)


@pytest.mark.parametrize("value", [0.0, 1.0, -3e20, 1e-30])
def test_equal_elements_fall_into_one_bucket_around_them(value):
    found = statistics(torch.full((10,), value))

    assert sorted(found.counts) == [0] * 7 + [10]
    assert found.limits == sorted(found.limits)
    assert found.limits[-1] > value


def test_the_full_range_of_a_type_does_not_overflow():
    largest = torch.finfo(torch.float32).max

    found = statistics(torch.tensor([-largest, 0.0, largest]), bins=2)

    assert found.counts == [1, 2]
    assert np.isfinite(found.limits).all()


def test_a_sparse_tensor_is_drawn_with_its_zeros():
    sparse = torch.tensor([[0.0, 2.0], [0.0, 0.0]]).to_sparse()

    assert statistics(sparse, bins=2).counts == [3, 1]


def test_numbers_too_close_for_double_precision_and_views_with_a_sign_to_come_are_counted():
    close = torch.tensor([0, 1e-306, 5e-307], dtype=torch.float64)
    negated = torch.tensor([1 + 2j, 3 - 4j]).conj().imag  # torch negates it when it is read

    assert statistics(close).finite == 3
    assert (statistics(negated).minimum, statistics(negated).total) == (-2.0, 2.0)


def test_the_norm_of_many_elements_does_not_drift():
    before = torch.full((8_000_000,), 0.1)
    after = before.clone()
    after[0] = 0.2

    assert relative_change(before, after).item() == pytest.approx(8e6**-0.5, rel=1e-4)
