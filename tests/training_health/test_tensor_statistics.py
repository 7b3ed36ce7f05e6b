"""Histograms and moments, against NumPy."""

import numpy as np
import pytest
import torch

from training_health.tensor_statistics import packed_statistics, unpack


def statistics(tensor: torch.Tensor, bins: int = 8):
    return unpack(packed_statistics(tensor, bins).tolist(), bins)


@pytest.mark.parametrize("shape", [(1000,), (7, 5, 3, 3), (2,)])
def test_finite_values_agree_with_numpy(shape):
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    found = statistics(tensor)

    counts, edges = np.histogram(tensor.numpy(), bins=8)
    assert found.counts == counts.tolist()
    assert found.limits == pytest.approx(edges[1:].tolist())
    assert (found.minimum, found.maximum) == (tensor.min().item(), tensor.max().item())
    assert found.total == pytest.approx(tensor.sum().item())
    assert found.squares == pytest.approx(tensor.square().sum().item())
    assert (found.finite, found.nonfinite) == (tensor.numel(), 0)


@pytest.mark.parametrize("strange", [None, torch.nan, torch.inf])
def test_single_precision_agrees_with_numpy_with_and_without_a_strange_element(strange):
    tensor = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    finite = tensor.clone()
    if strange is not None:
        tensor[7] = strange
        finite = torch.cat([tensor[:7], tensor[8:]])

    found = statistics(tensor, bins=16)

    counts, edges = np.histogram(finite.numpy(), bins=16)
    assert found.counts == counts.tolist()
    assert found.limits == pytest.approx(edges[1:].tolist(), abs=1e-6)
    assert (found.minimum, found.maximum) == (finite.min().item(), finite.max().item())
    assert found.total == pytest.approx(finite.double().sum().item())
    assert found.squares == pytest.approx(finite.double().square().sum().item())
    assert (found.finite, found.nonfinite) == (len(finite), 5000 - len(finite))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_element_is_in_a_bucket_whatever_the_precision(dtype):
    tensor = torch.randn(5000, generator=torch.Generator().manual_seed(0)).to(dtype)

    found = statistics(tensor, bins=64)

    assert sum(found.counts) == 5000
    assert found.limits[-1] >= found.maximum


def test_nan_and_infinity_are_counted_and_the_finite_part_is_drawn():
    tensor = torch.tensor([1.0, torch.nan, 2.0, torch.inf, 3.0, -torch.inf, torch.nan])

    found = statistics(tensor, bins=2)

    assert (found.finite, found.nonfinite) == (3, 4)
    assert (found.minimum, found.maximum, found.total, found.squares) == (1.0, 3.0, 6.0, pytest.approx(14.0))
    assert (found.counts, found.limits) == ([1, 2], [2.0, 3.0])


def test_nothing_finite_is_no_histogram():
    found = statistics(torch.full((5,), torch.nan))

    assert (found.finite, found.nonfinite, sum(found.counts)) == (0, 5, 0)


def test_an_empty_tensor_is_no_histogram():
    found = statistics(torch.empty(0, 3))

    assert (found.finite, found.nonfinite, sum(found.counts)) == (0, 0, 0)


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
