"""How trials ended, how they were sampled, and their CSV."""

import csv

import pytest
from optuna.trial import TrialState

from fmnist_pl.search.report.trials import by_sampling, csv_text, outcomes, repeated_as
from tests.fmnist_pl.search.report.studies import study, trial


def trials(*made):
    return study(*made).get_trials()


def failed(**more):
    return trial(state=TrialState.FAIL, **more)


@pytest.mark.parametrize(
    ("made", "outcome"),
    [
        (trial(0.9), "completed"),
        (trial(reported=[0.5]), "pruned"),
        (trial(failure="too large"), "not trained"),
        (failed(failure="NaN"), "failed"),
        (failed(), "failed"),
        (trial(state=TrialState.RUNNING), "running"),
        (trial(state=TrialState.WAITING), "waiting"),
    ],
)
def test_each_trial_has_an_outcome(made, outcome):
    assert outcomes(trials(made)) == [outcome]


def test_a_trial_that_is_retried_is_lost_however_often():
    made = trials(failed(), failed(retries=0), trial(0.9, retries=0), failed(params={"conv_layers": 2}))

    assert outcomes(made) == ["lost", "lost", "completed", "failed"]
    assert repeated_as(made) == {0: 2, 1: 2}


def test_an_interrupted_trial_is_lost_when_its_choices_are_tried_again():
    made = trials(failed(params={"conv_layers": 2}), trial(0.9), trial(0.9, {"conv_layers": 2}))

    assert repeated_as(made) == {0: 2}


def test_random_and_guided_trials_are_told_apart_by_what_had_finished():
    """The last trial retries the second, so its choices were drawn at random."""
    made = trials(
        trial(0.9, {"conv_layers": 3}), failed(), trial(reported=[0.5]), trial(failure="too large"), trial(0.7),
        trial(0.8, retries=1),
    )  # fmt: skip

    random, guided = by_sampling(made, named=1, random=4)

    assert ([t.number for t in random], [t.number for t in guided]) == ([5, 2], [4])


def test_csv_has_a_row_per_trial_and_a_column_per_choice():
    made = trials(
        trial(0.9, {"conv_layers": 2}, reported=[0.8, 0.9], parameters=7),
        failed(params={"optimizer": "sgd"}, failure='a "b",\nc'),
        trial(reported=[0.25], params={"optimizer": "sgd"}, retries=1),
    )

    first, second, third = csv.DictReader(csv_text(made).splitlines(keepends=True))

    assert first | {"validation_accuracy": "0.9", "epochs": "2", "parameters": "7", "conv_layers": "2"} == first
    assert second | {"state": "lost", "validation_accuracy": "", "failure": 'a "b",\nc', "conv_layers": ""} == second
    assert third | {"state": "pruned", "validation_accuracy": "0.25", "retries": "1"} == third


def test_csv_of_no_trials_is_its_head():
    assert csv_text([]).startswith("trial,state,validation_accuracy,epochs,parameters,seconds,dead_fraction,")
