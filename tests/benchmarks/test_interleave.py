"""The benchmarks' arithmetic against made times."""

import pytest

from benchmarks.interleave import Ratio, best_of, interleaved, ratio, summary


def test_a_ratio_is_taken_within_each_round_so_a_slow_minute_cancels():
    rounds = [{"a": 2.0, "b": 1.0}, {"a": 20.0, "b": 10.0}, {"a": 4.0, "b": 2.0}]

    assert ratio("a/b", rounds, "a", "b") == Ratio("a/b", 2.0, 2.0, 2.0, 3, best=2.0)


def test_the_best_rounds_are_compared_too():
    rounds = [{"a": 9.0, "b": 2.0}, {"a": 3.0, "b": 9.0}]

    assert ratio("a/b", rounds, "a", "b").best == 1.5


def test_the_median_ignores_one_disturbed_round():
    rounds = [{"a": 3.0, "b": 1.0}] * 4 + [{"a": 3.0, "b": 30.0}]

    assert ratio("a/b", rounds, "a", "b").median == 3.0


def test_the_interval_covers_the_median_and_lies_within_the_values():
    result = summary("x", [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6])

    assert 1.0 <= result.low < result.median == 1.3 < result.high <= 1.6


def test_the_interval_of_many_normal_values_has_the_width_of_theory():
    import numpy as np

    values = np.random.default_rng(1).normal(size=4000).tolist()

    result = summary("x", values, resamples=2000)

    standard_error = 1.2533 / 4000**0.5  # of a normal sample's median: sqrt(pi / 2) sigma / sqrt(n)
    assert result.high - result.low == pytest.approx(2 * 1.96 * standard_error, rel=0.2)


def test_a_median_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        summary("x", [])


def test_every_contender_runs_once_per_round_in_alternating_order():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) or 1.0 for name in ("a", "b", "c")}

    rounds = interleaved(contenders, rounds=2, warm_up=0)

    assert calls == ["a", "b", "c", "c", "b", "a"]
    assert rounds == [{"a": 1.0, "b": 1.0, "c": 1.0}] * 2


def test_warm_up_rounds_do_not_count():
    times = iter([9.0, 1.0, 2.0])

    assert interleaved({"a": lambda: next(times)}, rounds=2, warm_up=1) == [{"a": 1.0}, {"a": 2.0}]


def test_the_best_setting_has_the_lowest_median():
    rounds = [{"w0": 1.0, "w2": 2.0}, {"w0": 9.0, "w2": 2.0}, {"w0": 1.0, "w2": 2.0}]

    assert best_of(rounds, ["w0", "w2"]) == "w0"


def test_a_ratio_prints_its_interval_and_its_number_of_rounds():
    assert str(Ratio("x", 1.2345, 1.2, 1.3, 5)) == "1.234 [1.200, 1.300] (n = 5)"
