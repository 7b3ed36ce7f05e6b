"""Counting what is above zero, against the plain definition."""

import pytest
import torch

from training_health.relu.unit_activity import ActivityCounter, FlagBuffer, count_active


def reference(output: torch.Tensor, unit_dim: int) -> list[int]:
    return [int((output.select(unit_dim, unit) > 0).sum()) for unit in range(output.shape[unit_dim])]


@pytest.mark.parametrize(
    ("shape", "unit_dim"),
    [
        ((64, 16, 10, 10), 1),  # rows that are whole words
        ((300, 16, 4, 4), 1),  # more rows than a byte can count
        ((600, 3, 5, 5), 1),  # rows that are not: several images to a row, and a rest
        ((521, 1, 9, 9), 1),  # one channel
        ((1024, 64), 1),
        ((700, 33, 4), 2),  # units last
        ((40, 12, 7, 5, 3), 1),
        ((3, 4), 1),  # small
        ((1, 20000), 1),  # one image
        ((0, 8, 3, 3), 1),  # none
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_counts_are_exact(shape, unit_dim, dtype):
    output = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).relu()

    assert count_active(output, unit_dim).tolist() == reference(output, unit_dim)


@pytest.mark.parametrize("channels", [1, 3, 8, 13])
def test_counts_are_exact_in_channels_last_layout(channels):
    output = torch.randn(70, channels, 12, 12).relu().to(memory_format=torch.channels_last)

    assert count_active(output, 1).tolist() == reference(output, 1)


@pytest.mark.parametrize("shape", [(40, 24, 28, 28), (30, 8, 37, 37), (300, 64, 14, 14)])
def test_counts_are_exact_where_an_image_is_cut_into_several_rows(shape):
    output = torch.randn(shape).relu().to(memory_format=torch.channels_last)
    output[3, 5, 0, 0] = torch.nan

    assert count_active(output, 1).tolist() == reference(output, 1)


def test_counts_are_exact_for_a_view_that_is_not_dense():
    output = torch.randn(64, 16, 20, 20).relu()[:, ::2, :, 1:]

    assert count_active(output, 1).tolist() == reference(output, 1)


def test_counts_are_exact_across_chunks():
    output = torch.randn(300, 8, 40, 40).relu()  # 3.7 MB of flags

    assert count_active(output, 1).tolist() == reference(output, 1)


def test_a_unit_above_zero_everywhere_is_counted_everywhere():
    assert count_active(torch.ones(700, 8, 8, 8), 1).tolist() == [700 * 64] * 8


def test_nan_is_not_above_zero():
    output = torch.ones(64, 8, 16, 16)
    output[3, 5, 0, 0] = torch.nan

    assert count_active(output, 1).tolist() == [64 * 256] * 5 + [64 * 256 - 1] + [64 * 256] * 2


def test_infinity_is_above_zero():
    output = torch.zeros(64, 8, 16, 16)
    output[0, 1] = torch.inf
    output[1, 1] = torch.finfo(torch.float32).max

    assert count_active(output, 1).tolist() == [0, 512, 0, 0, 0, 0, 0, 0]


def test_the_smallest_subnormal_is_above_zero_and_minus_zero_is_not():
    output = torch.full((64, 8, 16, 16), -0.0)
    output[0, 2, 0, 0] = 1e-45

    assert count_active(output, 1).tolist() == [0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("shape", [(100, 8, 14, 14), (90, 3, 15, 15)])  # 300 and 270 images: a byte could overflow
def test_counts_add_up_over_batches(shape):
    batches = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)).relu() for seed in range(3)]
    counter = ActivityCounter(shape[1], torch.device("cpu"))

    for batch in batches:
        counter.add(batch, 1)

    assert counter.counts().tolist() == reference(torch.cat(batches), 1)


def test_counts_add_up_over_batches_of_different_layouts_and_with_a_nan():
    first = torch.ones(64, 8, 16, 16)
    nan = first.clone()
    nan[3, 5, 0, 0] = torch.nan
    counter = ActivityCounter(8, torch.device("cpu"))

    for batch in (first, nan, first.to(memory_format=torch.channels_last), first[:2, :, :4, :4]):
        counter.add(batch, 1)

    each = 3 * 64 * 256 + 2 * 16
    assert counter.counts().tolist() == [each] * 5 + [each - 1] + [each] * 2


def test_counters_of_different_shapes_share_one_buffer_of_flags():
    shapes = [(64, 16, 10, 10), (1024, 64), (3, 2, 600, 600), (64, 16, 10, 10)]
    outputs = [torch.randn(shape, generator=torch.Generator().manual_seed(0)).relu() for shape in shapes]
    flags = FlagBuffer()
    counters = [ActivityCounter(output.shape[1], torch.device("cpu"), flags) for output in outputs]

    for output, counter in [*zip(outputs, counters, strict=True)] * 2:
        counter.add(output, 1)

    for output, counter in zip(outputs, counters, strict=True):
        assert counter.counts().tolist() == [2 * count for count in reference(output, 1)]
