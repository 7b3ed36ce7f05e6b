"""Means over an epoch's examples."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmnist_pl.metrics import ExampleAccuracy, ExampleMean


def test_whether_an_example_was_right_counts_as_zero_or_one():
    metric = ExampleMean()
    metric.update(torch.tensor([True, True, False, True]))

    assert metric.compute().item() == 0.75


def test_before_the_first_example_there_is_no_mean():
    metric = ExampleMean()
    metric.update(torch.empty(0))

    assert math.isnan(metric.compute().item())


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="Apple's GPUs have no float64")
def test_a_long_sum_keeps_its_precision():
    metric = ExampleMean()
    for _ in range(2_000):
        metric.update(torch.full((50,), 0.1))

    assert metric.total.item() == pytest.approx(100_000 * torch.tensor(0.1).double().item(), rel=1e-12)


@given(
    epochs=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=140), min_size=1, max_size=3),
    seed=st.integers(0, 9),
)
def test_batches_that_are_added_count_as_if_each_were_taken_at_once(epochs, seed):
    generator, accuracy, loss = torch.Generator().manual_seed(seed), ExampleAccuracy(), ExampleMean()
    for sizes in epochs:
        logits = [torch.randn(size, 3, generator=generator) for size in sizes]
        labels = [torch.randint(3, (size,), generator=generator) for size in sizes]
        for number, (scores, classes) in enumerate(zip(logits, labels, strict=True), start=1):
            accuracy.add(scores, classes)
            loss.add(scores.amax(1))
            seen = sum(sizes[:number])
            if number in {1, 70, len(sizes)} and seen:
                right = sum(int((a.argmax(1) == b).sum()) for a, b in zip(logits[:number], labels, strict=False))
                assert accuracy.compute().item() == pytest.approx(right / seen)
                highest = sum(float(a.amax(1).double().sum()) for a in logits[:number])
                assert loss.compute().item() == pytest.approx(highest / seen, abs=1e-6)
        accuracy.reset()
        loss.reset()


def test_what_is_added_and_forgotten_is_not_counted():
    metric = ExampleMean()
    for value in (7.0, 8.0, 9.0):
        metric.add(torch.tensor([value]))
    metric.reset()
    metric.add(torch.tensor([1.0, 2.0]))

    assert metric.compute().item() == 1.5
