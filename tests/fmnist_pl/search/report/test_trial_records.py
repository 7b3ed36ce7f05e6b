"""Trials as records and as CSV."""

import csv

import pytest
from optuna.trial import TrialState

from fmnist_pl.search.report.trial_records import choice_names, completed, csv_text, trial_records
from tests.fmnist_pl.search.made_studies import failed, pruned, study, trial


def test_a_completed_trial_has_its_figures():
    (record,) = trial_records(study(trial(0.9, parameters=10, seconds=2.5, dead_share=0.1, run="r")))

    assert (record.state, record.accuracy, record.epochs) == ("complete", 0.9, 1)
    assert (record.parameters, record.seconds, record.dead_share, record.run) == (10, 2.5, 0.1, "r")


def test_a_pruned_trial_has_the_accuracy_of_its_last_epoch():
    (record,) = trial_records(study(pruned([0.6, 0.7])))

    assert (record.state, record.accuracy, record.epochs) == ("pruned", 0.7, 2)


def test_a_failed_trial_has_its_reason():
    (record,) = trial_records(study(failed("NaN")))

    assert (record.state, record.accuracy, record.failure) == ("failed", None, "NaN")


@pytest.mark.parametrize(("state", "word"), [(TrialState.RUNNING, "running"), (TrialState.WAITING, "waiting")])
def test_trials_may_be_unfinished(state, word):
    assert [record.state for record in trial_records(study(trial(state=state)))] == [word]


def test_a_trial_that_was_lost_is_no_failed_one():
    records = trial_records(study(failed(lost="killed"), trial(0.9, retries=[0])))

    assert [record.state for record in records] == ["lost", "complete"]
    assert records[1].retries == (0,)


def test_a_trial_that_optuna_retried_is_lost_too():
    assert trial_records(study(failed(), trial(0.9, retries=[0])))[0].state == "lost"


def test_completed_leaves_the_others_out():
    records = trial_records(study(trial(0.9), pruned([0.5]), failed()))

    assert [(record.number, accuracy) for record, accuracy in completed(records)] == [(0, 0.9)]


def test_choices_are_named_once():
    records = trial_records(study(trial(0.9, {"optimizer": "sgd", "momentum": 0.5}), trial(0.9, {"optimizer": "adam"})))

    assert choice_names(records) == ["optimizer", "momentum"]


def test_csv_has_a_row_per_trial_and_a_column_per_choice():
    made = study(
        trial(0.9, {"optimizer": "sgd", "momentum": 0.5}, parameters=7), failed('a "b",\nc', {"optimizer": "adam"})
    )

    first, second = csv.DictReader(csv_text(trial_records(made)).splitlines(keepends=True))

    assert (first["trial"], first["validation_accuracy"], first["parameters"]) == ("0", "0.9", "7")
    assert (first["optimizer"], first["momentum"]) == ("sgd", "0.5")
    assert (second["state"], second["validation_accuracy"], second["failure"]) == ("failed", "", 'a "b",\nc')
    assert second["momentum"] == ""


def test_csv_of_no_trials_is_its_head():
    assert csv_text([]) == (
        "trial,state,validation_accuracy,epochs,parameters,seconds,dead_share,validation_loss,run,failure,retries\n"
    )
