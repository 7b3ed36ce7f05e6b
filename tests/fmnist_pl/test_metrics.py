"""Means over an epoch's images."""

import math

import pytest
import torch

from fmnist_pl.metrics import ImageMean


def test_the_mean_weighs_every_image_alike():
    metric = ImageMean()
    metric.update(torch.tensor([1.0, 2.0, 3.0]))
    metric.update(torch.tensor([10.0]))

    assert metric.compute().item() == 4.0


def test_whether_an_image_was_right_counts_as_zero_or_one():
    metric = ImageMean()
    metric.update(torch.tensor([True, True, False, True]))

    assert metric.compute().item() == 0.75


def test_before_the_first_image_there_is_no_mean():
    metric = ImageMean()
    metric.update(torch.empty(0))

    assert math.isnan(metric.compute().item())


def test_a_mean_goes_on_from_anothers_sums():
    saved, restored = ImageMean(), ImageMean()
    saved.update(torch.tensor([2.0, 4.0]))

    restored.set_sums(saved.sums())
    restored.update(torch.tensor([6.0]))

    assert restored.compute().item() == 4.0


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="Apple's GPUs have no float64")
def test_a_long_sum_keeps_its_precision():
    metric = ImageMean()
    for _ in range(2_000):
        metric.update(torch.full((50,), 0.1))

    assert metric.total.item() == pytest.approx(100_000 * torch.tensor(0.1).double().item(), rel=1e-12)


def test_adding_without_the_bookkeeping_gives_the_same_mean():
    metric = ImageMean()

    metric.add(torch.tensor([1.0, 2.0]))
    metric.add(torch.tensor([6.0]))

    assert metric.compute().item() == 3.0  # without torchmetrics' warning that nothing was added


def test_adding_after_a_reset_starts_anew():
    metric = ImageMean()
    metric.add(torch.tensor([5.0]))
    metric.compute()
    metric.reset()
    metric.add(torch.tensor([1.0]))

    assert metric.compute().item() == 1.0
