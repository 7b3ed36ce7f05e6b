"""Counting what is above zero, against the plain definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training_health.relu.unit_activity import ActivityCounter, FlagBuffer


def reference(output: torch.Tensor, unit_dim: int) -> list[int]:
    return [int((output.select(unit_dim, unit) > 0).sum()) for unit in range(output.shape[unit_dim])]


def relu_outputs(shape, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).relu()


@settings(deadline=None, max_examples=40)
@given(
    shapes=st.lists(
        st.tuples(st.integers(0, 300), st.integers(1, 3), st.sampled_from([(), (1,), (7, 5), (8, 8)])), max_size=3
    ),
    units=st.integers(1, 17),
    unit_dim=st.sampled_from([0, 1, -1]),
    channels_last=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64]),
    data=st.data(),
)
def test_counts_are_those_of_the_definition_over_any_batches(shapes, units, unit_dim, channels_last, dtype, data):
    counter, expected = ActivityCounter(units, torch.device("cpu"), FlagBuffer()), [0] * units
    for seed, (examples, extra, positions) in enumerate(shapes):
        shape = [examples, extra, *positions]
        shape.insert(unit_dim % (len(shape) + 1), units)
        output = relu_outputs(shape, seed).to(dtype)
        if channels_last and output.dim() == 4:
            output = output.contiguous(memory_format=torch.channels_last)
        if data.draw(st.booleans(), label="a view with holes"):
            output = output[..., ::2] if unit_dim == 0 else output[::2]
        counter.add(output, unit_dim % len(shape))
        expected = [a + b for a, b in zip(expected, reference(output, unit_dim), strict=True)]

    assert counter.counts().tolist() == expected


SHAPES = [
    (300, 16, 4, 4),  # more rows than a byte can count
    (600, 3, 5, 5),  # rows that are no whole words: several examples to a row, and a rest
    (1, 20000),
    (300, 8, 40, 40),  # more flags than a chunk holds
    (40, 24, 28, 28),  # channels last: an example is cut into several rows
    (30, 8, 37, 37),
]


@pytest.mark.parametrize("value", [None, 1.0])
def test_counts_are_exact_at_the_limits_of_bytes_rows_and_chunks_with_one_buffer_for_all(value):
    flags = FlagBuffer()
    for shape in SHAPES:
        output = relu_outputs(shape) if value is None else torch.full(shape, value)
        counter = ActivityCounter(shape[1], torch.device("cpu"), flags)
        for layout in [output, output if output.dim() < 4 else output.to(memory_format=torch.channels_last)]:
            counter.add(layout, 1)
        assert counter.counts().tolist() == [2 * count for count in reference(output, 1)]


def test_above_zero_is_above_zero_and_nothing_else():
    values = [torch.nan, torch.inf, 1e-45, -0.0, torch.finfo(torch.float32).max]
    output = torch.full((64, 5, 16, 16), -0.0)
    output[3, :, 0, 0] = torch.tensor(values)
    counter = ActivityCounter(5, torch.device("cpu"), FlagBuffer())
    counter.add(output, 1)

    assert counter.counts().tolist() == [0, 1, 1, 0, 1]
    assert counter.finite().tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_sum_beyond_the_largest_number_is_no_infinite_output(dtype):
    counter = ActivityCounter(2, torch.device("cpu"), FlagBuffer())
    counter.add(torch.full((8, 2), torch.finfo(dtype).max, dtype=dtype), 1)

    assert counter.finite().tolist() == [True, True]
