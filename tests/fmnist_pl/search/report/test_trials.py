"""How trials ended, how they were sampled, and their CSV."""

import csv

import pytest
from optuna.trial import TrialState

from fmnist_pl.search.report.trials import by_sampling, csv_text, outcome
from tests.fmnist_pl.search.report.studies import study, trial


def trials(*made):
    return study(*made).get_trials()


def failed(**more):
    return trial(state=TrialState.FAIL, **more)


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (trial(0.9), "completed"),
        (trial(reported=[0.5]), "pruned"),
        (trial(failure="too large"), "not trained"),
        (failed(failure="NaN"), "failed"),
        (failed(), "lost"),
        (trial(state=TrialState.RUNNING), "running"),
        (trial(state=TrialState.WAITING), "waiting"),
    ],
)
def test_each_trial_has_an_outcome(made, word):
    assert outcome(made) == word


def test_random_and_guided_trials_are_told_apart_by_how_many_had_a_result():
    """The last trial repeats the second, so its choices were drawn at random."""
    named, large, last = trial(0.9, {"conv_layers": 3}), trial(failure="too large"), trial(0.8, retries=1)
    made = trials(named, failed(), trial(reported=[0.5]), large, failed(failure="NaN"), trial(0.7), last)

    random, guided = by_sampling(made, named=1, random=4)

    assert ([trial.number for trial in random], [trial.number for trial in guided]) == ([6, 2], [5])


def test_csv_has_a_row_per_trial_and_a_column_per_choice():
    made = trials(
        trial(0.9, {"conv_layers": 2}, reported=[0.8, 0.9], parameters=7),
        failed(params={"optimizer": "sgd"}, failure='a "b",\nc'),
        trial(reported=[0.25], params={"optimizer": "sgd"}, retries=1),
    )

    first, second, third = csv.DictReader(csv_text(made).splitlines(keepends=True))

    assert first | {"validation_accuracy": "0.9", "epochs": "2", "parameters": "7", "conv_layers": "2"} == first
    assert second | {"state": "failed", "validation_accuracy": "", "failure": 'a "b",\nc', "conv_layers": ""} == second
    assert third | {"state": "pruned", "validation_accuracy": "0.25", "repeats": "1"} == third
