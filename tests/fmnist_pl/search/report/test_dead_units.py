"""Dead share against accuracy."""

import numpy as np
import pytest
from scipy import stats

from fmnist_pl.search.report.dead_units import answer, relation

DEAD = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_the_correlation_is_spearman_s():
    accuracies = [0.9, 0.91, 0.88, 0.89, 0.87, 0.9, 0.86, 0.85]
    expected = stats.spearmanr(DEAD, accuracies)

    found = relation(DEAD, accuracies)

    assert found.n == 8
    assert found.rho == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.low < found.rho < found.high


def test_the_slope_is_in_points_per_ten_points():
    found = relation(DEAD, [0.9 - 0.05 * dead + (0.0001 if i % 2 else 0) for i, dead in enumerate(DEAD)])

    assert found.slope == pytest.approx(-0.5, abs=0.02)
    assert found.slope_low <= found.slope <= found.slope_high


@pytest.mark.parametrize(
    ("dead", "accuracies"),
    [([], []), ([0.1], [0.9]), (DEAD[:7], DEAD[:7]), ([0.1] * 8, DEAD), (DEAD, [0.9] * 8)],
)
def test_there_may_be_nothing_to_relate(dead, accuracies):
    assert relation(dead, accuracies) is None


def test_a_perfect_order_is_no_error():
    assert relation(DEAD, DEAD[::-1]).rho == pytest.approx(-1)


def test_unrelated_figures_are_within_noise():
    draw = np.random.default_rng(0)
    found = [relation(draw.random(20), draw.random(20)).beyond_noise for _ in range(200)]

    assert sum(found) / 200 == pytest.approx(0.05, abs=0.04)


def test_noise_is_called_noise():
    text = answer(relation(DEAD, [0.9, 0.91, 0.9, 0.91, 0.9, 0.91, 0.9, 0.912]), 8)

    assert text.startswith("Not that 8 trials can show: rank correlation +0.")
    assert "which is within noise" in text


def test_a_cost_is_told_with_its_size():
    text = answer(relation(DEAD, [0.9, 0.89, 0.885, 0.87, 0.86, 0.85, 0.845, 0.83]), 8)

    assert text.startswith("It seems so: the networks with more dead units were the less accurate ones")
    assert "-1.00 points of accuracy per 10 points of dead share" in text


def test_more_dead_units_may_go_with_more_accuracy():
    text = answer(relation(DEAD, [0.8, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87]), 8)

    assert text.startswith("No: the networks with more dead units were the more accurate ones")


@pytest.mark.parametrize(("n", "words"), [(0, "0 completed trials"), (1, "1 completed trial with")])
def test_too_few_trials_are_called_that(n, words):
    assert answer(None, n).startswith(f"That cannot be told from {words}")
