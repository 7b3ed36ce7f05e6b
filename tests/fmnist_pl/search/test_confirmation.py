"""The winner against the baseline, with trainings that only pretend."""

import sys

import pytest

from fmnist_pl.compare.comparison import compare, run_result
from fmnist_pl.compare.finished import FinishedRun
from fmnist_pl.search import confirmation
from fmnist_pl.search.confirmation import Confirmation, confirm
from fmnist_pl.search.result import write_winner
from tests.fmnist_pl.compare.made_runs import DATA, pretend_to_train, summary, trained, wanted
from tests.fmnist_pl.search.made_studies import study, trial
from training_health.errors import UserError

OVERLAY = {"model": {"conv_channels": [4, 4], "hidden_units": [8]}}


def confirmed(*pairs):
    """A confirmation whose runs have these test accuracies: baseline's and winner's by seed; None failed."""
    results = []
    for seed, accuracies in enumerate(pairs, start=1):
        for name, test in zip(("baseline", "winner"), accuracies, strict=True):
            run = wanted(name, seed)
            finished = None if test is None else FinishedRun(f"{name}/{seed}", summary(run, test=test))
            results.append(run_result(run, finished, None if test is not None else "It broke."))
    return Confirmation(compare(results, "baseline", DATA), "winner", 10, 0.93)


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (
            [(0.90, 0.921), (0.90, 0.920), (0.90, 0.919)],
            "The winner is better than the baseline (+2.00 ± 0.25 points of test accuracy, 3 further seeds, "
            "paired 95 % interval).",
        ),
        (
            [(0.921, 0.90), (0.920, 0.90), (0.919, 0.90)],
            "The winner is worse than the baseline (-2.00 ± 0.25 points of test accuracy, 3 further seeds, paired 95 % "
            "interval).",
        ),
        (
            [(0.90, 0.92), (0.90, 0.89)],
            "The winner is not better than the baseline beyond noise (+0.50 ± 19.06 points of test accuracy, 2 further "
            "seeds, paired 95 % interval).",
        ),
        (
            [(0.90, 0.92)],
            "The winner's test accuracy is +2.00 points from the baseline's with one seed: not a verdict.",
        ),
        (
            [(0.90, None)],
            "The winner could not be compared with the baseline: no seed has finished runs of both.",
        ),
    ],
)
def test_the_verdict_is_one_sentence(pairs, sentence):
    assert confirmed(*pairs).sentence == sentence


@pytest.fixture
def pretend(monkeypatch):
    """What `fmnist fit` would train is only noted; seed 2 of the winner fails as long as `broken` is set."""
    broken = []

    def fit_command(logdir):
        def command(run, interrupted):
            if broken and run.name == "winner" and run.seed == 2:
                return [sys.executable, "-c", "import sys; sys.exit('error: It broke.')"]
            return pretend_to_train(run, logdir, test=0.9 + 0.01 * (run.name == "winner"))

        return command

    monkeypatch.setattr(confirmation, "fit_command", fit_command)
    monkeypatch.setattr("fmnist_pl.compare.runner.code_is_unchanged", lambda: True)
    return broken


def call(tmp_path, settings=(), **options):
    (tmp_path / "logs").mkdir(exist_ok=True)
    made = study(trial(0.9, overlay=OVERLAY), data="synthetic", options=list(settings))
    winner = write_winner(made, tmp_path / "search")
    arguments = {"seeds": [1, 2], "epochs": 2, "jobs": 1, "logdir": tmp_path / "logs"} | options
    return confirm(made, winner, tmp_path / "search", **arguments)


def test_both_are_trained_with_every_seed_and_compared(tmp_path, pretend, capsys):
    found = call(tmp_path)

    assert trained(tmp_path / "logs") == ["baseline 1", "winner 1", "baseline 2", "winner 2"]
    assert (found.winner, found.epochs, found.searched) == ("winner", 2, 0.9)
    assert found.difference.mean == pytest.approx(0.01)
    assert (tmp_path / "search" / "confirmation" / "compare.md").is_file()
    assert "4 of 4 runs" in capsys.readouterr().err


def test_called_again_it_trains_what_is_missing_alone(tmp_path, pretend):
    pretend.append(True)
    first = call(tmp_path)
    pretend.clear()
    second = call(tmp_path)

    assert [run.failure for run in first.comparison.runs] == [None, None, None, "It broke."]
    assert [run.failure for run in second.comparison.runs] == [None] * 4
    assert trained(tmp_path / "logs") == ["baseline 1", "winner 1", "baseline 2", "winner 2"]


def test_the_runs_take_the_study_s_data_the_epochs_and_further_options(tmp_path, pretend):
    found = call(tmp_path, ["--data.training_images=64"], seeds=[1], options=["--data.batch_size=32"])

    assert found.comparison.data["dataset"] == "synthetic"
    assert found.comparison.data["training_images"] == 64


@pytest.mark.parametrize(
    ("options", "message"), [({"seeds": []}, "No seeds were given"), ({"jobs": 0}, "--jobs must be at least 1, got 0")]
)
def test_wrong_calls_are_refused(tmp_path, pretend, options, message):
    with pytest.raises(UserError, match=message) as raised:
        call(tmp_path, **options)

    assert raised.value.exit_code == 2
