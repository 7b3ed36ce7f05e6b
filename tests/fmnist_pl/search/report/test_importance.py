"""Optuna's importance against chance."""

import pytest

from fmnist_pl.search.report.importance import importances
from tests.fmnist_pl.search.made_studies import failed, layers_matter, study, trial


def test_the_choice_behind_the_best_trials_comes_first_and_is_beyond_chance():
    found = importances(layers_matter(60))

    assert (found.n, found.best, found.unknown) == (60, 6, None)
    assert found.choices[0].name == "conv_layers"
    assert [choice.share > choice.chance for choice in found.choices] == [True, False, False]
    assert sum(choice.share for choice in found.choices) == pytest.approx(1)


def test_it_is_the_same_every_time():
    assert importances(layers_matter(20)) == importances(layers_matter(20))


def test_at_least_five_trials_are_the_best():
    assert importances(layers_matter(12)).best == 5


def test_a_conditional_choice_is_assessed_too():
    assert "momentum" in {choice.name for choice in importances(layers_matter(20)).choices}


@pytest.mark.parametrize(
    ("trials", "reason"),
    [
        ([], "0 completed trials are too few to say which choices mattered"),
        ([trial(0.9), failed()], "1 completed trial is too few"),
        ([trial(0.9, {"conv_layers": 1 + i % 4}) for i in range(10)], "All completed trials reached the same accuracy"),
        ([trial(i / 10, {}) for i in range(10)], "No choice had more than one possible value"),
    ],
)
def test_what_cannot_be_said_is_called_that(trials, reason):
    found = importances(study(*trials))

    assert found.choices == ()
    assert found.unknown.startswith(reason)
