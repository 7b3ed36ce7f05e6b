"""When a run saves, what it leaves, and how it is stopped."""

import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping

from fmnist_pl.checkpoints.best_checkpoint import BestCheckpoint
from fmnist_pl.checkpoints.checkpoint_file import load_checked
from fmnist_pl.checkpoints.last_checkpoint import RESUMABLE, LastCheckpoint, end_launched_ranks
from fmnist_pl.checkpoints.stop_request import STOP_REQUEST, Stopped
from tests.soak.toys import KeepAll, Toy, differences, last, train
from training_health.errors import UserError


def saved(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "checkpoints").glob("e*b*.ckpt"))


def train_and_keep(folder: Path, every_n_batches: int | None = 1, **options: object) -> list[str]:
    train(Toy(trainer=options), folder, saver=KeepAll(every_n_minutes=None, every_n_batches=every_n_batches))
    return saved(folder)


def test_it_saves_after_every_epoch(tmp_path):
    assert train_and_keep(tmp_path, every_n_batches=None) == ["e0b6", "e1b6", "e2b6"]


def test_within_an_epoch_it_saves_by_batches(tmp_path):
    assert train_and_keep(tmp_path, 2, max_epochs=1) == ["e0b2", "e0b4", "e0b6"]


def test_within_an_epoch_it_saves_by_time(tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 25))  # a look at the clock every 25 seconds
    monkeypatch.setattr("fmnist_pl.checkpoints.last_checkpoint.time", SimpleNamespace(monotonic=lambda: next(clock)))
    train(Toy(trainer={"max_epochs": 1}), tmp_path, saver=KeepAll(every_n_minutes=1.0))

    assert saved(tmp_path) == ["e0b3", "e0b6"]


def test_it_never_saves_within_an_accumulated_step(tmp_path):
    assert train_and_keep(tmp_path, max_epochs=1, accumulate_grad_batches=4) == ["e0b4", "e0b6"]


def test_two_checkpoints_are_there_after_a_run(tmp_path):
    train(Toy(), tmp_path, saver=LastCheckpoint())

    moments = {path.stem: load_checked(path).get(RESUMABLE) for path in (tmp_path / "checkpoints").iterdir()}
    assert {name: moment and moment["epoch"] for name, moment in moments.items()} == {
        "last": 2,
        "previous": 1,
        "best": None,
    }


def test_a_trial_run_saves_nothing(tmp_path):
    train(Toy(trainer={"fast_dev_run": True}), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.ckpt.99.part").write_bytes(b"half")
    train(Toy(trainer={"max_epochs": 1}), tmp_path)

    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize("options", [{"every_n_minutes": 0}, {"every_n_minutes": -1.0}, {"every_n_batches": 0}])
def test_impossible_intervals_are_refused(options):
    with pytest.raises(UserError, match=r"--checkpoint.every_n_\w+ must be"):
        LastCheckpoint(**options)


def test_a_run_that_stops_early_is_not_trained_further_when_resumed(tmp_path):
    class Stopping(KeepAll):
        def setup(self, trainer, pl_module, stage):
            trainer.callbacks.insert(0, EarlyStopping("val/loss", patience=1, min_delta=10.0))
            super().setup(trainer, pl_module, stage)

    straight, _ = train(Toy(trainer={"max_epochs": 9}), tmp_path / "a", saver=Stopping(every_n_minutes=None))
    end = tmp_path / "a" / "checkpoints" / "e1b6.ckpt"
    resumed, _ = train(Toy(trainer={"max_epochs": 9}), tmp_path / "b", end, saver=Stopping(every_n_minutes=None))

    assert (straight.global_step, resumed.global_step) == (12, 12)


class StopsItself(pl.Callback):
    """Sends a signal to this process at the start of a batch."""

    def __init__(self, number: signal.Signals, at_step: int, times: int = 1) -> None:
        self.number, self.at_step, self.times = number, at_step, times

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.at_step:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


class Interrupted(LastCheckpoint):
    """A LastCheckpoint whose run is sent a signal."""

    def __init__(self, *stop: object) -> None:
        super().__init__()
        self.stop = StopsItself(*stop)

    def on_train_batch_start(self, trainer, pl_module, *rest):
        super().on_train_batch_start(trainer, pl_module, *rest)
        self.stop.on_train_batch_start(trainer)


@pytest.mark.parametrize(
    ("number", "status", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")]
)
def test_a_signal_saves_at_the_end_of_the_batch_and_stops(tmp_path, capfd, number, status, name):
    with STOP_REQUEST.listening(), pytest.raises(Stopped) as raised:
        train(Toy(), tmp_path, saver=Interrupted(number, 8))

    assert raised.value.code == status
    checkpoint = load_checked(last(tmp_path))
    assert checkpoint["global_step"] == 9
    assert (checkpoint[RESUMABLE]["epoch"], checkpoint[RESUMABLE]["batches"]) == (1, 3)
    said = capfd.readouterr().err
    assert f"Stopped by {name}. Saved: {last(tmp_path)}\nGo on with: fmnist fit --resume {tmp_path}\n" in said


@pytest.mark.parametrize("step", [5, 11])
def test_a_signal_in_the_last_batch_waits_for_the_end_of_the_epoch(tmp_path, step):
    with STOP_REQUEST.listening(), pytest.raises(Stopped):
        train(Toy(), tmp_path, saver=Interrupted(signal.SIGTERM, step))

    assert load_checked(last(tmp_path))["global_step"] == step + 1


def test_a_run_that_was_stopped_ends_like_one_that_was_not(tmp_path):
    train(Toy(), tmp_path / "straight", saver=LastCheckpoint())
    with STOP_REQUEST.listening(), pytest.raises(Stopped):
        train(Toy(), tmp_path / "stopped", saver=Interrupted(signal.SIGTERM, 8))
    train(Toy(), tmp_path / "stopped", last(tmp_path / "stopped"), saver=LastCheckpoint())

    ends = [load_checked(last(tmp_path / name)) for name in ("straight", "stopped")]
    assert differences(*ends) == []


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    with STOP_REQUEST.listening(), pytest.raises(Stopped) as raised:
        train(Toy(), tmp_path, saver=Interrupted(signal.SIGINT, 8, 2))

    assert raised.value.code == 130
    assert load_checked(last(tmp_path))["global_step"] == 6  # that of the last epoch


def test_before_the_first_checkpoint_it_says_that_there_is_none(tmp_path, capfd):
    with STOP_REQUEST.listening(), pytest.raises(Stopped):
        train(Toy(), tmp_path, saver=Interrupted(signal.SIGINT, 0, 2))

    assert "Stopped by Ctrl-C. Nothing had been saved yet." in capfd.readouterr().err


def test_outside_of_training_a_signal_ends_the_process_at_once():
    with STOP_REQUEST.listening(), pytest.raises(SystemExit) as raised:
        os.kill(os.getpid(), signal.SIGTERM)

    assert raised.value.code == 143


def test_ranks_that_wait_for_a_failed_one_are_ended(tmp_path):
    waiting, failing = subprocess.Popen(["sleep", "60"]), subprocess.Popen(["false"])
    trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[waiting, failing])))
    end_launched_ranks(trainer, patience=0.1)

    assert (waiting.wait(), failing.wait()) == (-signal.SIGKILL, 1)


def test_the_handlers_of_before_are_back_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with STOP_REQUEST.listening():
        assert signal.getsignal(signal.SIGTERM) not in before

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_epochs_means_are_those_of_all_its_images_after_a_resume_in_its_middle(tmp_path):
    train_and_keep(tmp_path / "straight", max_epochs=1)
    trainer, _ = train(Toy(trainer={"max_epochs": 1}), tmp_path / "b", tmp_path / "straight/checkpoints/e0b4.ckpt")
    straight = load_checked(tmp_path / "straight" / "checkpoints" / "e0b6.ckpt")["callback_metrics"]

    assert {name: value.item() for name, value in trainer.callback_metrics.items()} == {
        name: value.item() for name, value in straight.items()
    }


def test_the_best_value_is_remembered_where_the_folder_was_moved(tmp_path):
    train(Toy(), tmp_path / "here", saver=LastCheckpoint())
    (tmp_path / "here").rename(tmp_path / "there")
    state = load_checked(last(tmp_path / "there"))["callbacks"]
    (own,) = (value for key, value in state.items() if key.startswith("BestCheckpoint"))
    best = BestCheckpoint()
    best.dirpath = str(tmp_path / "there" / "checkpoints")
    best.load_state_dict(own)

    assert Path(best.best_model_path) == tmp_path / "there" / "checkpoints" / "best.ckpt"
    assert torch.equal(best.best_model_score, own["best_model_score"])
    assert list(best.best_k_models) == [best.best_model_path]
