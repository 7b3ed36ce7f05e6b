"""Means over an epoch's examples."""

import math

import pytest
import torch

from fmnist_pl.metrics import ExampleMean


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
