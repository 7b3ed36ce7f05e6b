"""The winner, and the winner against the baseline, with trainings that only pretend."""

import pytest

from fmnist_pl.compare import comparison as comparing
from fmnist_pl.compare.comparison import Comparison
from fmnist_pl.compare.results import paired_difference
from fmnist_pl.configuration import load_yaml
from fmnist_pl.search.confirmation import Confirmation, confirm, write_winner
from tests.fmnist_pl.compare.made_runs import DATA, pretend_to_train, trained
from tests.fmnist_pl.search.made_studies import failed, pruned, study, trial
from training_health.errors import UserError


def test_the_winner_is_the_best_trials_overlay(tmp_path):
    space = {"space": {"conv_layers": {"from": 1, "to": 4}, "optimizer": ["adam", "sgd"]}, "fixed": {"batch_size": 32}}
    made = study(
        trial(0.5), trial(0.9, {"conv_layers": 2, "optimizer": "sgd"}), name="a\nvariant: b\u2028c", space=space
    )
    path = write_winner(made, tmp_path / "new")

    assert path == tmp_path / "new" / "winner.yaml"
    assert load_yaml(path) == {
        "model": {"optimizer": "sgd", "conv_channels": [64, 32]},
        "data": {"batch_size": 32},
        "variant": "winner",
    }
    assert path.read_text().startswith("# Trial 1 of the search ")


def test_without_a_completed_trial_there_is_no_winner(tmp_path):
    with pytest.raises(UserError, match="No trial of the study 'made' was completed"):
        write_winner(study(failed("NaN"), pruned([0.9])), tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match=r"winner\.yaml cannot be written"):
        write_winner(study(trial(0.9)), tmp_path / "file")


@pytest.mark.parametrize(
    ("baseline", "winner", "words"),
    [
        ([0.90, 0.90, 0.90], [0.921, 0.920, 0.919], ["is better", "+2.00 ± 0.25 points", "3 further seeds"]),
        ([0.921, 0.920, 0.919], [0.90, 0.90, 0.90], ["is worse", "-2.00 ± 0.25 points", "3 further seeds"]),
        ([0.90, 0.90], [0.92, 0.89], ["is not better", "beyond noise", "+0.50 ± 19.06 points", "2 further seeds"]),
        ([0.90], [0.92], ["+2.00 points", "one seed: not a verdict"]),
    ],
)
def test_the_verdict_is_one_sentence(baseline, winner, words):
    differences = {"winner": {"test_accuracy": paired_difference(winner, baseline)}}
    confirmation = Confirmation(Comparison((), "baseline", differences, DATA), "winner", 10, 0.93)

    assert all(word in confirmation.sentence for word in words)


def test_without_a_pair_there_is_no_verdict():
    comparison = Comparison((), "baseline", {"winner": {"test_accuracy": None}}, DATA)

    assert "could not be compared" in Confirmation(comparison, "winner", 10, 0.93).sentence


def test_both_are_trained_with_every_seed_on_the_study_s_data_and_compared(tmp_path, monkeypatch):
    def command(logdir, run, interrupted):
        return pretend_to_train(run, logdir, test=0.9 + 0.01 * (run.name == "winner"))

    monkeypatch.setattr(comparing, "fit_command", command)
    (tmp_path / "logs").mkdir()
    made = study(trial(0.9), data="synthetic", options=["--data.training_images=64"])
    winner = write_winner(made, tmp_path / "search")
    found = confirm(made, winner, tmp_path / "search", [1, 2], 2, 1, tmp_path / "logs")

    assert trained(tmp_path / "logs") == ["baseline 1", "winner 1", "baseline 2", "winner 2"]
    assert (found.winner, found.epochs, found.searched) == ("winner", 2, 0.9)
    assert found.difference.mean == pytest.approx(0.01)
    assert found.comparison.data["dataset"] == "synthetic"
    assert found.comparison.data["training_images"] == 64
    assert any((tmp_path / "search" / "confirmation").iterdir())
