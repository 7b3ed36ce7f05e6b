"""Means, variances and standard errors, against numbers worked out by hand or by NumPy."""

import math

import numpy as np
import pytest

from training_health.gap.records import scalars, sentence
from training_health.gap.statistics import NAN, Evaluation, Gap, Sums, total, variance_from_batch_means


def test_sums_over_ranks_give_the_mean_and_variance_over_all_images():
    losses = np.random.default_rng(0).exponential(size=37)
    parts = [losses[:20], losses[20:]]

    both = total(Sums(len(p), float((p > 1).sum()), p.sum(), (p**2).sum()) for p in parts).evaluation()

    assert both.examples == 37
    assert both.accuracy == pytest.approx((losses > 1).mean())
    assert both.loss == pytest.approx(losses.mean())
    assert both.loss_variance == pytest.approx(losses.var(ddof=1))


def test_a_rank_without_images_does_not_make_the_sum_unknown():
    assert total([Sums(4, 2, 8.0, 20.0), Sums()]) == Sums(4, 2, 8.0, 20.0)
    assert total([Sums(), Sums()]).evaluation().examples == 0


def test_the_accuracy_gaps_standard_error_is_binomial():
    gap = Gap(Evaluation(5000, 0.95), Evaluation(5000, 0.90))

    assert gap.accuracy == pytest.approx(0.05)
    assert gap.accuracy_se == pytest.approx(math.sqrt(0.0475 / 5000 + 0.09 / 5000))  # 0.00524


def test_the_loss_gaps_standard_error_comes_from_the_variance_of_one_image():
    gap = Gap(Evaluation(100, loss=0.2, loss_variance=0.25), Evaluation(400, loss=0.5, loss_variance=1.0))

    assert gap.loss == pytest.approx(0.3)
    assert gap.loss_se == pytest.approx(math.sqrt(0.0025 + 0.0025))


@pytest.mark.parametrize(
    ("training", "verdict"),
    [(0.93, True), (0.911, False), (0.90, False), (0.88, True)],  # 2 SE around 0.90 is 0.012
)
def test_a_gap_is_beyond_noise_above_two_standard_errors(training, verdict):
    assert Gap(Evaluation(5000, training), Evaluation(5000, 0.90)).beyond_noise is verdict


def test_without_an_accuracy_the_loss_decides():
    sides = Evaluation(100, loss=0.2, loss_variance=0.01), Evaluation(100, loss=0.5, loss_variance=0.01)

    assert Gap(*sides).beyond_noise is True
    assert Gap(Evaluation(10), Evaluation(10)).beyond_noise is None


def test_the_mode_effect_is_what_training_mode_hid():
    gap = Gap(Evaluation(10, 0.9), Evaluation(10, 0.8), running_accuracy=0.7)

    assert gap.mode_effect == pytest.approx(0.2)
    assert scalars(gap)["gap/mode_effect"] == pytest.approx(0.2)


def test_batch_means_give_the_variance_of_one_image():
    generator = np.random.default_rng(0)
    images = generator.normal(3, 2, size=(4000, 25))  # batches of 25

    variance = variance_from_batch_means(images.mean(axis=1).tolist(), [25] * 4000)

    assert variance == pytest.approx(4.0, rel=0.1)
    assert math.isnan(variance_from_batch_means([1.0], [25]))


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (
            Gap(Evaluation(5000, 0.966), Evaluation(5000, 0.920), running_accuracy=0.9),
            "The gap is 4.6 ± 0.5 points (training 96.6 %, validation 92.0 %, both in eval mode, n = 5,000 each): "
            "beyond noise. Mode effect: the running accuracy (90.0 %) was 6.6 points below it, through dropout, "
            "augmentation and averaging while the weights moved; that is not overfitting.",
        ),
        (
            Gap(Evaluation(50, 0.90), Evaluation(40, 0.90)),
            "The gap is 0.0 ± 6.4 points (training 90.0 %, validation 90.0 %, both in eval mode, n = 50 and 40): "
            "within 2 standard errors, noise.",
        ),
        (
            Gap(Evaluation(50, loss=0.5), Evaluation(50, loss=0.75)),
            "The gap in loss is 0.2500 ± unknown (training 0.5000, validation 0.7500, both in eval mode, n = 50 each).",
        ),
        (None, "The gap was not measured: no validation has run beside training."),
    ],
)
def test_the_gap_in_words(gap, words):
    assert sentence(gap) == words


def test_unknown_values_stay_unknown():
    values = scalars(Gap(Evaluation(5, loss=0.1), Evaluation(5, loss=NAN)))

    assert all(math.isnan(values[key]) for key in ("gap/accuracy", "gap/loss", "gap/loss_se", "gap/mode_effect"))
    assert values["gap/train_eval_loss"] == 0.1
