"""One trial as an ordinary run."""

import dataclasses
import json

import numpy as np
import optuna
import pytest
import yaml

from fmnist_pl.search.study import Settings
from fmnist_pl.search.trial import FitObjective
from fmnist_pl.search.worker import Search, TrialFailedError
from training_health.errors import UserError

SPACE = {
    "space": {"activation": ["relu", "gelu"], "learning_rate": {"from": 1e-3, "to": 1e38, "log": True}},
    "fixed": {"conv_channels": [2, 2], "hidden_units": [4], "batch_size": 32, "optimizer": "sgd", "conv_dropout": 0.5},
}
NEVER = optuna.pruners.NopPruner()


class Always(optuna.pruners.BasePruner):
    """Prunes; as Optuna's percentile pruner says it, which compares with a number of NumPy."""

    def prune(self, study, trial):
        return np.bool_(True)


ALWAYS = Always()


@pytest.fixture
def search(tmp_path, data_dir):
    options = [f"--data.root={data_dir}", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
    return Search("tiny", Settings("synthetic", 2, 7, 64, options, {}, SPACE), "", tmp_path / "search", 1)


def train(search, pruner=NEVER, learning_rate=0.01, activation="relu"):
    """Train one trial with these parameters."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.enqueue_trial({"activation": activation, "learning_rate": learning_rate})
    study.optimize(FitObjective(search), n_trials=1, catch=TrialFailedError)
    return study.trials[-1]


def test_a_trial_is_an_ordinary_run_that_is_not_tested(search):
    trial = train(search)

    run = search.folder / "trial_0000-synthetic" / "version_0"
    summary = json.loads((run / "summary.json").read_text())
    assert trial.value == summary["last_epoch"]["val/accuracy"]
    assert trial.intermediate_values == dict(enumerate(one["val/accuracy"] for one in summary["history"]))
    assert trial.user_attrs.pop("seconds") == sum(one["seconds"] for one in summary["history"])
    assert trial.user_attrs == {
        "parameters": 474,
        "run": str(run),
        "dead_fraction": summary["last_epoch"]["dead_relu/total"],
        "validation_loss": summary["last_epoch"]["val/loss"],
    }
    assert (summary["test"], summary["test_checkpoint"]) == ({}, "none")
    assert {"gap/accuracy", "dead_relu/total"} <= set(summary["last_epoch"])
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["best.ckpt"]
    configuration = yaml.safe_load((search.folder / "configurations" / "trial_0000.yaml").read_text())
    assert configuration["model"]["learning_rate"] == 0.01


def test_a_pruned_trial_ends_its_epoch_in_order(search):
    trial = train(search, ALWAYS)

    summary = json.loads((search.folder / "trial_0000-synthetic" / "version_0" / "summary.json").read_text())
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert summary["epochs"] == 1
    assert {"train/loss", "val/loss", "gap/accuracy", "dead_relu/total"} <= set(summary["last_epoch"])


def test_no_trial_is_pruned_after_its_last_epoch(search):
    short = dataclasses.replace(search, settings=dataclasses.replace(search.settings, epochs=1))

    assert train(short, ALWAYS).state == optuna.trial.TrialState.COMPLETE


@pytest.mark.filterwarnings("ignore:.* hold NaN or infinity")  # the monitors say so too
def test_a_trial_that_diverges_says_when(search):
    trial = train(search, learning_rate=1e38, activation="gelu")  # no unit can die, which would keep the loss finite

    assert trial.state == optuna.trial.TrialState.FAIL
    assert trial.user_attrs["failure"].endswith("after epoch 1")
    assert trial.intermediate_values == {}


def test_a_network_beyond_the_limits_is_not_trained(search):
    small = dataclasses.replace(search.settings, space={**SPACE, "parameters_at_most": 100})
    trial = train(dataclasses.replace(search, settings=small))

    assert trial.state == optuna.trial.TrialState.PRUNED
    assert trial.constraints == {"parameters": pytest.approx(3.74)}
    assert trial.user_attrs == {"failure": "474 parameters, and 100 are allowed"}
    assert not search.folder.exists()


@pytest.mark.filterwarnings("ignore:.*could not find the monitored key")  # Lightning notices too, and a monitor
@pytest.mark.filterwarnings("ignore:Neither dead units nor the gap are measured")
def test_a_trial_without_validation_is_a_user_error(search):
    search.settings.options.append("--trainer.limit_val_batches=0")

    with pytest.raises(UserError, match="logged no val/accuracy"):
        train(search)


@pytest.mark.slow
def test_trials_in_one_process_do_not_touch_each_other(search):
    first, other, again = (train(search, activation=name) for name in ("relu", "gelu", "relu"))

    losses = [trial.user_attrs["validation_loss"] for trial in (first, other, again)]
    assert losses[0] == losses[2] != losses[1]
