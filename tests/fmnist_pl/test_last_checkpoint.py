"""When a run saves, what it leaves, and how it is stopped."""

import itertools
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from fmnist_pl.checkpoints.callbacks import BestCheckpoint, end_launched_ranks, is_resumable
from fmnist_pl.checkpoints.checkpoint_file import load_checked
from fmnist_pl.cli import main
from fmnist_pl.process import Stopped, stop_at_once
from tests.soak.command import TINY
from training_health.errors import UserError

OPTIONS = ("fit", *TINY, "--monitors=off", "--trainer.logger.init_args.version=0")
RUN = Path("lightning_logs") / "baseline-synthetic" / "version_0"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(tmp_path_factory.getbasetemp() / "data"))


def checkpoints(run: Path = RUN) -> dict[str, dict]:
    return {path.name: load_checked(path) for path in (run / "checkpoints").glob("*")}


class Signal(pl.Callback):
    """Sends a signal to this process at the start of a batch."""

    def __init__(self, number: signal.Signals, at_step: int) -> None:
        self.number, self.at_step = number, at_step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.at_step:
            os.kill(os.getpid(), self.number)


def test_three_checkpoints_are_there_after_a_run_and_what_a_killed_one_left_is_not():
    (RUN / "checkpoints").mkdir(parents=True)
    (RUN / "checkpoints" / ".last.ckpt.99.part").write_bytes(b"half")
    main([*OPTIONS])

    found = checkpoints()
    assert {name: is_resumable(content) for name, content in found.items()} == {
        "last.ckpt": True,
        "previous.ckpt": True,
        "best.ckpt": False,
    }
    assert (found["last.ckpt"]["epoch"], found["previous.ckpt"]["epoch"]) == (3, 2)


def test_an_epochs_curves_are_on_disk_before_the_checkpoint_that_counts_it(monkeypatch):
    synced, real = [], os.fsync
    name = lambda descriptor: Path(os.readlink(f"/proc/self/fd/{descriptor}")).name  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(name(descriptor)), real(descriptor)))
    main([*OPTIONS, "--trainer.max_epochs=1"])

    found = [kind for one in synced for kind in ("events", ".last.ckpt", ".summary.json") if one.startswith(kind)]
    kinds = [kind for kind, _ in itertools.groupby(found)]
    assert kinds[:2] == ["events", ".last.ckpt"]
    assert kinds[-2:] == ["events", ".summary.json"]


class Holds(pl.Callback):
    """Has a state that no run could resume from."""

    def state_dict(self):
        return {"path": Path()}


def test_a_callback_whose_state_cannot_be_loaded_is_named_at_the_start():
    with pytest.raises(UserError, match="the state of Holds"):
        main([*OPTIONS], callbacks=[Holds()])

    assert checkpoints() == {}


class Takes(pl.Callback):
    """Has an argument that no configuration can hold."""

    def __init__(self, thing: torch.layout | str = torch.strided) -> None: ...


def test_an_argument_that_does_not_read_back_is_named_at_the_start():
    with pytest.warns(UserWarning, match="cannot be resumed: thing of Takes"):
        main([*OPTIONS, "--trainer.max_epochs=1", f"--trainer.callbacks+={__name__}.Takes"])


def test_a_trial_run_saves_nothing():
    main([*OPTIONS, "--trainer.fast_dev_run=true"])

    assert not list(Path().rglob("*.ckpt"))


def test_a_run_that_stopped_early_is_trained_further_only_where_it_is_to_have_more_epochs():
    stopping = "--trainer.callbacks+={class_path: EarlyStopping, init_args: {monitor: val/loss, min_delta: 10.0}}"
    straight = main([*OPTIONS, "--trainer.max_epochs=9", stopping])
    (RUN / "summary.json").unlink()
    resumed = main(["fit", "--resume", str(RUN)])

    assert straight.trainer.global_step == resumed.trainer.global_step == 8 * 4
    assert any(isinstance(callback, EarlyStopping) for callback in resumed.trainer.callbacks)

    longer = main(["fit", "--resume", str(RUN), "--trainer.max_epochs=12"])

    assert longer.trainer.global_step == 8 * (4 + 3)  # the patience of three epochs begins again


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
)
def test_a_signal_stops_the_run_at_once_and_says_how_to_resume(capfd, number, status, name):
    with pytest.raises(Stopped) as raised:
        main([*OPTIONS], callbacks=[Signal(number, 19)])

    assert raised.value.code == status
    assert checkpoints()["last.ckpt"]["global_step"] == 16
    assert f"Stopped by {name}. Resume: fmnist fit --resume {RUN}\n" in capfd.readouterr().err


def test_before_the_first_checkpoint_it_says_that_there_is_none(capfd):
    with pytest.raises(Stopped):
        main([*OPTIONS], callbacks=[Signal(signal.SIGINT, 3)])

    assert "Stopped by Ctrl-C. No epoch had ended" in capfd.readouterr().err


def test_outside_of_training_a_signal_ends_the_process_and_the_handlers_of_before_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_at_once(), pytest.raises(SystemExit) as raised:
        os.kill(os.getpid(), signal.SIGTERM)

    assert raised.value.code == 143
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_ranks_that_wait_for_a_failed_one_are_ended():
    waiting, failing = subprocess.Popen(["sleep", "60"]), subprocess.Popen(["false"])
    failing.wait()
    trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[waiting, failing])))
    end_launched_ranks(trainer, patience=0.1)

    assert (waiting.wait(), failing.wait()) == (-signal.SIGKILL, 1)


def test_the_best_value_is_remembered_where_the_folder_was_moved(tmp_path):
    main([*OPTIONS])
    (own,) = (state for key, state in checkpoints()["last.ckpt"]["callbacks"].items() if key.startswith("Best"))
    best = BestCheckpoint()
    best.dirpath = str(tmp_path / "there" / "checkpoints")
    best.load_state_dict(own)

    assert Path(best.best_model_path) == tmp_path / "there" / "checkpoints" / "best.ckpt"
    assert torch.equal(best.best_model_score, own["best_model_score"])
    assert list(best.best_k_models) == [best.best_model_path]
