"""One trial as an ordinary run."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml

from fmnist_pl.search.workers.job import DIVERGED, DONE, PRUNED, TrialJob
from fmnist_pl.search.workers.trial_run import PruningReport, fit_arguments, run_trial
from training_health.errors import UserError


def epoch_end(report, epoch, max_epochs=3, **figures):
    metrics = {key.replace("_", "/"): torch.tensor(value) for key, value in figures.items()}
    trainer = SimpleNamespace(callback_metrics=metrics, current_epoch=epoch, max_epochs=max_epochs, should_stop=False)
    report.on_train_epoch_end(trainer, None)
    return trainer.should_stop


def test_every_epoch_is_reported_from_0():
    reported = []
    report = PruningReport(lambda *words: bool(reported.append(words)))

    assert not epoch_end(report, 0, val_accuracy=0.5, val_loss=2.0)
    assert not epoch_end(report, 1, val_accuracy=0.75, val_loss=1.0)
    assert reported == [(0, 0.5), (1, 0.75)]
    assert (report.accuracy, report.validation_loss) == (0.75, 1.0)


def test_a_hopeless_trial_stops_but_not_after_its_last_epoch():
    report = PruningReport(lambda epoch, accuracy: True)

    assert not epoch_end(report, 2, val_accuracy=0.5)
    assert not report.pruned
    assert epoch_end(report, 1, val_accuracy=0.5)
    assert report.pruned


@pytest.mark.parametrize(("key", "value"), [("train_loss", float("nan")), ("val_loss", float("inf"))])
def test_figures_that_are_no_numbers_are_a_failure_and_are_not_reported(key, value):
    report = PruningReport(lambda epoch, accuracy: pytest.fail("reported"))

    assert epoch_end(report, 1, **{"val_accuracy": 0.1, key: value})
    assert report.failure == f"{key.replace('_', '/')} was {value} after epoch 2"


def test_an_epoch_without_validation_is_not_reported():
    report = PruningReport(lambda epoch, accuracy: pytest.fail("reported"))

    assert not epoch_end(report, 0, train_loss=1.0)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where the synthetic images are drawn once for all tests of this file."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def job(tmp_path, data_dir):
    """Make a tiny trial."""

    def make(number=0, **model):
        overlay = tmp_path / f"trial_{number:04}.yaml"
        network = {"conv_channels": [2, 2], "hidden_units": [4]}
        overlay.write_text(yaml.safe_dump({"model": {**network, **model}, "data": {"batch_size": 32}}))
        options = ("--data.dataset=synthetic", "--data.training_images=64", f"--data.root={data_dir}")
        options += ("--trainer.limit_val_batches=1", "--trainer.accelerator=cpu")
        return TrialJob(number, str(overlay), str(tmp_path / "search"), 2, 7, options)

    return make


def test_a_trial_is_an_ordinary_run_that_is_not_tested(job, tmp_path):
    outcome = run_trial(job(), lambda epoch, accuracy: False)

    run = tmp_path / "search" / "trial_0000-synthetic" / "version_0"
    summary = json.loads((run / "summary.json").read_text())
    assert outcome["kind"] == DONE
    assert outcome["value"] == summary["last_epoch"]["val/accuracy"]
    assert outcome["figures"] == {
        "run": str(run),
        "seconds": sum(entry["seconds"] for entry in summary["history"]),
        "dead_share": summary["last_epoch"]["dead_relu/total"],
        "validation_loss": summary["last_epoch"]["val/loss"],
    }
    assert summary["test"] == {}
    assert summary["test_checkpoint"] == "none"
    assert {"gap/accuracy", "dead_relu/total"} <= set(summary["last_epoch"])
    assert any(key.startswith("update_ratio/") for key in summary["last_epoch"])
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["best.ckpt"]
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "hparams.yaml", "identity.json"}


def test_a_pruned_trial_ends_its_epoch_in_order(job, tmp_path):
    outcome = run_trial(job(), lambda epoch, accuracy: True)

    run = tmp_path / "search" / "trial_0000-synthetic" / "version_0"
    summary = json.loads((run / "summary.json").read_text())
    assert outcome["kind"] == PRUNED
    assert summary["epochs"] == 1
    assert {"train/loss", "val/loss", "gap/accuracy", "dead_relu/total"} <= set(summary["last_epoch"])


@pytest.mark.filterwarnings("ignore:.* hold NaN or infinity")  # the monitors say so too
def test_a_trial_that_diverges_says_when(job):
    outcome = run_trial(job(optimizer="sgd", learning_rate=1e30), lambda epoch, accuracy: False)

    assert outcome["kind"] == DIVERGED
    assert outcome["reason"].endswith("after epoch 1")


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")  # Lightning notices too
def test_a_trial_without_validation_is_the_users_to_mend(job):
    unjudged = replace(job(), options=(*job().options, "--trainer.limit_val_batches=0"))

    with pytest.raises(UserError, match="logged no val/accuracy, by which trials are judged"):
        run_trial(unjudged, lambda epoch, accuracy: False)


def test_trials_in_one_process_do_not_touch_each_other(job):
    def train(number, **model):
        return run_trial(job(number, **model), lambda epoch, accuracy: False)["figures"]["validation_loss"]

    first = train(0, conv_dropout=0.5)
    other = train(1, activation="gelu", optimizer="sgd")

    assert train(2, conv_dropout=0.5) == first != other


def test_the_command_line_of_a_trial_can_be_repeated(job, tmp_path):
    assert fit_arguments(job())[:7] == [
        "fit",
        "--variant",
        str(tmp_path / "trial_0000.yaml"),
        "--seed_everything=7",
        "--trainer.max_epochs=2",
        "--test_checkpoint=none",
        f"--trainer.logger.init_args.save_dir={tmp_path / 'search'}",
    ]
