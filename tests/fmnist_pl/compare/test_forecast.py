"""The time left."""

import pytest

from fmnist_pl.compare.forecast import Forecast, duration
from tests.fmnist_pl.compare.made_runs import wanted  # runs of two epochs


def test_nothing_is_foretold_before_anything_was_seen():
    assert Forecast().seconds_left([(wanted(), 0)], jobs=1) is None


def test_each_variant_has_its_own_pace():
    forecast = Forecast()
    forecast.learn("baseline", 10)
    forecast.learn("sgd", 6)

    assert forecast.seconds_left([(wanted("baseline"), 0), (wanted("sgd"), 1)], jobs=1) == 2 * 10 + 1 * 6


def test_a_variant_not_seen_yet_is_taken_for_usual():
    forecast = Forecast()
    forecast.learn("baseline", 10)
    forecast.learn("sgd", 6)

    assert forecast.seconds_left([(wanted("gelu"), 0)], jobs=1) == 2 * 8


def test_jobs_share_the_work_but_a_run_is_not_divided():
    forecast = Forecast()
    forecast.learn("baseline", 10)

    assert forecast.seconds_left([(wanted(seed=s), 0) for s in range(4)], jobs=2) == 40
    assert forecast.seconds_left([(wanted(), 0)], jobs=2) == 20


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (75, "75 s"), (200, "3 min"), (9000, "2.5 h")])
def test_durations_read_well(seconds, words):
    assert duration(seconds) == words
