"""The winner's overlay."""

import optuna
import pytest
import yaml

from fmnist_pl.search.result import best_trial, write_winner
from fmnist_pl.search.storage import StudyStorage
from fmnist_pl.yaml_file import load_yaml
from tests.fmnist_pl.search.made_studies import failed, pruned, study, trial
from training_health.errors import UserError


def test_the_best_trial_has_the_highest_accuracy():
    assert best_trial(study(trial(0.8), trial(0.9), trial(0.7))).number == 1


def test_of_equals_the_earliest_is_the_best():
    assert best_trial(study(trial(0.9), trial(0.9))).number == 0


def test_of_equals_in_a_database_the_earliest_is_the_best(tmp_path):
    storage = StudyStorage(f"sqlite:///{tmp_path / 'study.db'}")
    made = optuna.create_study(storage=storage.backend, direction="maximize")
    running = [made.ask() for _ in range(3)]
    for one, value in ((running[2], 0.9), (running[1], 0.9), (running[0], 0.8)):
        made.tell(one, value)

    assert best_trial(made).number == 1


def test_a_pruned_trial_is_never_the_best():
    assert best_trial(study(pruned([0.99]), trial(0.5))).number == 1


def test_without_a_completed_trial_none_is_the_best():
    assert best_trial(study(pruned([0.9]), failed())) is None


def test_the_winner_is_an_overlay(tmp_path):
    overlay = {"model": {"learning_rate": 1e-05, "conv_channels": [8, 16]}, "data": {"batch_size": 32}}

    path = write_winner(study(trial(0.5), trial(0.9123, overlay=overlay)), tmp_path / "new")

    assert path == tmp_path / "new" / "winner.yaml"
    assert load_yaml(path) == {**overlay, "variant": "winner"}
    assert path.read_text().startswith(
        "# Trial 1 of the search made: the best of 2, validation accuracy 91.23 %.\nmodel:\n"
    )


def test_a_study_s_name_stays_in_the_comment(tmp_path):
    path = write_winner(study(trial(0.9, overlay={"model": {}}), name="a\nvariant: b\u2028c"), tmp_path)

    assert yaml.safe_load(path.read_text()) == {"model": {}, "variant": "winner"}


def test_without_a_completed_trial_there_is_no_winner(tmp_path):
    with pytest.raises(UserError, match="No trial of the study 'made' was completed, so it has no winner"):
        write_winner(study(failed("NaN")), tmp_path)


def test_a_foreign_study_has_no_winner(tmp_path):
    with pytest.raises(UserError, match="holds no configuration, so it was not made by `fmnist search`"):
        write_winner(study(trial(0.9, overlay=None)), tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match=r"winner\.yaml cannot be written"):
        write_winner(study(trial(0.9)), tmp_path / "file")
