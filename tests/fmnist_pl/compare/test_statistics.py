"""Mean, spread and paired intervals, against hand-computed values and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fmnist_pl.compare.results import Difference, paired_difference

ACCURACY = st.integers(0, 10_000).map(lambda correct: correct / 10_000)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(ACCURACY, ACCURACY), min_size=2, max_size=8).filter(lambda p: np.ptp(np.diff(p)) > 1e-3))
def test_the_interval_is_that_of_scipys_paired_t_test(pairs):
    values, reference = zip(*pairs, strict=True)
    test = stats.ttest_rel(values, reference)
    interval = test.confidence_interval(0.95)

    found = paired_difference(values, reference)

    assert found.n == len(pairs)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(interval)
    assert found.verdict == ("different" if test.pvalue < 0.05 else "noise")


def test_a_difference_of_rounding_is_no_difference():
    assert paired_difference([0.1 + 0.2] * 3, [0.3] * 3).verdict == "noise"


def test_one_pair_gives_no_interval_and_no_verdict():
    found = paired_difference([0.9], [0.8])

    assert found == Difference(1, pytest.approx(0.1), None)
    assert found.verdict == "unknown"


def test_of_equal_variants_about_five_in_a_hundred_are_called_different():
    # Test accuracies of 10,000 images around 91 %, seed noise 0.25 points, half of it common to the pair.
    rng = np.random.default_rng(0)
    trials, seeds = 2000, 3
    common = rng.normal(0.91, 0.0018, (trials, 1, seeds))
    pairs = np.round(common + rng.normal(0, 0.0018, (trials, 2, seeds)), 4)

    wrong = sum(paired_difference(a, b).verdict == "different" for a, b in pairs.tolist())

    assert wrong / trials == pytest.approx(0.05, abs=0.015)  # three standard errors
