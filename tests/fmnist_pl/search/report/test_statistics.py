"""The statistics against independent computations, and what they must not claim."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fmnist_pl.search.report.statistics import analyse, dead_units, guidance, lower_fence, not_told_apart


def by_name(analysis):
    return {effect.choice: effect for effect in analysis.effects}


def residual(columns, y):
    """Sum of squares that least squares leave over, and its degrees of freedom."""
    x = np.stack([np.ones(len(y)), *columns], axis=1)
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return rest @ rest, len(y) - np.linalg.matrix_rank(x)


def indicators(values):
    return [np.asarray([value == level for value in values], float) for level in sorted(set(values))[1:]]


def test_the_f_test_is_what_leaving_a_choice_out_loses():
    rng = np.random.default_rng(0)
    a, b, c = rng.integers(0, 3, 40).tolist(), rng.integers(0, 2, 40).tolist(), rng.choice(list("xyz"), 40).tolist()
    y = 0.9 + 0.004 * np.asarray(a) + rng.normal(0, 0.005, 40)
    rest, spare = residual(indicators(a) + indicators(b) + indicators(c), y)
    expected = []
    for others in (indicators(b) + indicators(c), indicators(a) + indicators(c), indicators(a) + indicators(b)):
        without, more = residual(others, y)
        expected.append(stats.f.sf((without - rest) / (more - spare) / (rest / spare), more - spare, spare))

    found = by_name(analyse([{"a": i, "b": j, "c": k} for i, j, k in zip(a, b, c, strict=True)], list(y)))

    adjusted = stats.false_discovery_control(expected)
    assert [found[name].p_value for name in "abc"] == pytest.approx(list(adjusted))


def test_two_values_of_one_choice_are_compared_as_by_student():
    y = np.random.default_rng(1).uniform(0.88, 0.92, 21)
    expected = stats.ttest_ind(y[::2], y[1::2])
    interval = expected.confidence_interval(0.95)

    (effect,) = analyse([{"x": "ab"[i % 2]} for i in range(21)], list(y)).effects

    assert effect.p_value == pytest.approx(expected.pvalue)
    assert effect.difference == pytest.approx(abs(y[::2].mean() - y[1::2].mean()))
    assert effect.half_width == pytest.approx((interval.high - interval.low) / 2)


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(24)), st.floats(-0.3, 0.05))
def test_order_and_level_of_the_trials_do_not_matter(order, shift):
    choices = [{"a": i % 3, "b": "xy"[i // 2 % 2]} for i in range(24)]
    y = [0.9 + 0.01 * (i % 3) + 0.001 * (i * 7 % 11) for i in range(24)]
    expected = by_name(analyse(choices, y))

    found = by_name(analyse([choices[i] for i in order], [y[i] + shift for i in order]))

    for name in "ab":
        assert found[name].p_value == pytest.approx(expected[name].p_value)
        assert found[name].difference == pytest.approx(expected[name].difference)
    assert (found["a"].best, found["a"].worst, found["a"].n) == ("2", "0", (8, 8))


def test_a_choice_that_the_sampler_drifted_to_gets_no_credit():
    """The late trials have more layers and another letter; the letter does nothing."""
    rng = np.random.default_rng(3)
    late = [i >= 40 for i in range(80)]
    layers, letters = rng.integers(1, 4, 80) + 2 * np.array(late), rng.random(80) < np.where(late, 0.8, 0.2)
    choices = [{"layers": int(n), "letter": "ab"[int(b)]} for n, b in zip(layers, letters, strict=True)]
    y = [0.8 + 0.02 * made["layers"] + rng.normal(0, 0.004) for made in choices]
    by_letter = [[value for value, made in zip(y, choices, strict=True) if made["letter"] == wanted] for wanted in "ab"]

    found = by_name(analyse(choices, y))

    assert stats.ttest_ind(*by_letter).pvalue < 0.01  # by itself it looks good
    assert (found["layers"].verdict, found["letter"].verdict) == ("matters", "noise")


def test_choices_that_do_nothing_seldom_matter_and_their_intervals_include_zero():
    rng = np.random.default_rng(4)
    wrong, excluded = 0, 0
    for _ in range(60):
        choices = [{"a": rng.uniform(), "b": int(rng.integers(4))} for _ in range(40)]
        effects = analyse(choices, list(rng.normal(0.9, 0.01, 40))).effects
        wrong += any(effect.verdict == "matters" for effect in effects)
        excluded += sum(effect.difference > effect.half_width for effect in effects)

    assert wrong <= 8  # 5 % of 60 are 3
    assert excluded <= 12  # 5 % of 120 are 6: the pair of values was picked, and the interval knows


@pytest.mark.parametrize(("n", "ranges"), [(19, 6), (18, 3), (12, 2), (10, 0)])
def test_fewer_trials_allow_a_coarser_comparison(n, ranges):
    rng = np.random.default_rng(5)
    found = analyse([{"a": rng.uniform(), "b": rng.uniform()} for _ in range(n)], list(rng.normal(0.9, 0.01, n)))

    assert found.ranges == ranges
    assert bool(found.unknown) == (ranges == 0)


@pytest.mark.parametrize(
    ("choices", "unknown"),
    [
        ([{"x": "ab"[i % 2], "y": "cd"[i % 2]} for i in range(20)], {"x", "y"}),  # always change together
        ([{"x": "ab"[i % 2], "y": "c"} for i in range(20)], {"y"}),  # never changes
        ([{"x": "ab"[i % 2], "y": "cd"[i == 7]} for i in range(20)], {"y"}),  # one trial is no evidence
    ],
)
def test_what_the_trials_cannot_tell_is_unknown(choices, unknown):
    found = analyse(choices, [0.9 + 0.01 * (i % 2) + 0.001 * (i * 7 % 5) for i in range(20)])

    assert {effect.choice for effect in found.effects if effect.verdict == "unknown"} == unknown


def test_a_trial_that_learned_nothing_counts_as_the_fence():
    y = [0.8 + (i % 5) / 20 for i in range(20)] + [0.1]  # quartiles 0.85 and 0.95

    assert lower_fence(y) == pytest.approx(0.7)
    assert analyse([{"x": i % 3} for i in range(21)], y).below == 1


def test_accuracies_that_cannot_be_told_from_the_best_are_counted():
    """Of 5,000 images each, 0.9 and 0.888 differ by 1.94 standard errors, 0.9 and 0.887 by 2.10."""
    assert not_told_apart([0.887, 0.9, 0.888, 0.9], 5000) == 2


def test_of_guided_and_random_trials_the_pairs_are_counted():
    random, guided = [0.80, 0.82, 0.84, 0.86, 0.88], [0.85, 0.891, 0.892, 0.893, 0.90]

    assert guidance(random, guided)[1] == 23 / 25
    assert guidance(random[:4], guided) is None


def test_dead_units_are_related_by_rank():
    dead, y = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], [0.9, 0.91, 0.88, 0.89, 0.87, 0.9, 0.86, 0.85]
    expected, line = stats.spearmanr(dead, y), stats.theilslopes(y, dead)
    half_width = stats.norm.isf(0.025) / math.sqrt(8 - 3)  # Fisher's transformation
    low, high = np.tanh(np.arctanh(expected.statistic) + np.array([-half_width, half_width]))

    p_value, rho, slope = dead_units(dead, y)

    assert p_value == pytest.approx(expected.pvalue)
    assert rho == pytest.approx((expected.statistic, low, high))
    assert slope == pytest.approx((line.slope, line.low_slope, line.high_slope))


def test_dead_units_may_be_unrelated_to_anything_or_in_perfect_order():
    assert dead_units([0.1 * i for i in range(7)], [0.1 * i for i in range(7)]) is None  # too few
    assert dead_units([0.1] * 8, [0.9] * 8) is None
    assert dead_units(list(range(8)), list(range(8, 0, -1)))[1][0] == pytest.approx(-1)
