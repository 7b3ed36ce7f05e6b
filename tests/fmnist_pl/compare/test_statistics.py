"""Mean, spread and paired intervals, against hand-computed values and scipy."""

import numpy as np
import pytest
from scipy import stats

from fmnist_pl.compare.statistics import Difference, paired_difference, spread


def test_mean_and_sample_deviation():
    result = spread([1.0, 2.0, 3.0, 6.0])

    assert (result.n, result.mean) == (4, 3.0)
    assert result.sd == pytest.approx((14 / 3) ** 0.5)  # squares 4 + 1 + 0 + 9 over n - 1


def test_one_value_has_no_deviation():
    assert spread([0.25]).sd is None


def test_the_interval_is_the_paired_t_interval():
    result = paired_difference([3.0, 5.0, 4.0, 6.0, 7.0], [2.0, 3.0, 3.0, 3.0, 4.0])  # 1 2 1 3 3: mean 2, sd 1

    assert result.mean == pytest.approx(2.0)
    assert result.half_width == pytest.approx(2.776445 / 5**0.5, rel=1e-6)  # t's 97.5 % point for 4 degrees of freedom
    assert result.p_value == pytest.approx(stats.ttest_1samp([1, 2, 1, 3, 3], 0).pvalue)


def test_two_pairs_are_enough_for_an_interval():
    result = paired_difference([1.0, 3.0], [0.0, 0.0])  # mean 2, sd sqrt 2, so standard error 1

    assert result.half_width == pytest.approx(12.7062, rel=1e-5)  # t's 97.5 % point for one degree of freedom


def test_what_both_share_by_seed_cancels():
    seeds = np.array([10.0, 20.0, 30.0, 40.0])
    result = paired_difference(seeds + np.array([1.0, 1.1, 0.9, 1.0]), seeds)

    assert result.half_width < 0.2
    assert result.verdict == "different"


@pytest.mark.parametrize(
    ("mean", "half_width", "verdict"),
    [
        (0.5, 0.4, "different"),
        (-0.5, 0.4, "different"),
        (0.3, 0.4, "noise"),
        (0.4, 0.4, "noise"),
        (9.0, None, "unknown"),
    ],
)
def test_a_difference_counts_if_its_interval_leaves_zero_out(mean, half_width, verdict):
    assert Difference(5, mean, half_width, None).verdict == verdict


def test_one_pair_gives_no_interval():
    assert paired_difference([0.9], [0.8]) == Difference(1, pytest.approx(0.1), None, None)


def test_equal_runs_do_not_differ():
    result = paired_difference([0.91, 0.92, 0.93], [0.91, 0.92, 0.93])

    assert (result.mean, result.half_width, result.p_value, result.verdict) == (0.0, 0.0, 1.0, "noise")


def test_a_difference_that_never_varies_needs_no_t_test():
    result = paired_difference([0.93, 0.95, 0.97], [0.9, 0.92, 0.94])

    assert result.mean == pytest.approx(0.03)
    assert (result.half_width, result.p_value, result.verdict) == (0.0, 0.0, "different")


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="Pairs are needed, got 2 and 1"):
        paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize("seeds", [3, 5])
def test_of_equal_variants_about_five_in_a_hundred_are_called_different(seeds):
    # Test accuracies of 10,000 images around 91 %, seed noise 0.25 points, half of it shared by the pair.
    generator = np.random.default_rng(0)
    trials = 2000
    shared = generator.normal(0.91, 0.0018, (trials, 1, seeds))
    pairs = np.round(shared + generator.normal(0, 0.0018, (trials, 2, seeds)), 4)

    wrong = sum(paired_difference(a, b).verdict == "different" for a, b in pairs.tolist())

    assert wrong / trials == pytest.approx(0.05, abs=0.015)  # three standard errors of the share


def test_a_real_difference_is_found():
    generator = np.random.default_rng(1)
    pairs = generator.normal(0.91, 0.0025, (300, 2, 5))
    pairs[:, 1] -= 0.01

    found = sum(paired_difference(a, b).verdict == "different" for a, b in pairs.tolist())

    assert found / 300 > 0.98
