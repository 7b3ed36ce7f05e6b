"""Saves where the training stands, so that it can go on from there as if it had never stopped."""

import contextlib
import copy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from fmnist_pl.checkpoints.durable_io import KEEP_AS
from fmnist_pl.checkpoints.stop_request import STOP_REQUEST, Stopped
from training_health.durable_file import remove_stale_temporaries
from training_health.errors import UserError

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
RESUMABLE = "resumable"  # key in the checkpoint: taken at a moment from which the training can go on
METRICS = "callback_metrics"  # key in the checkpoint: what had been logged, as other callbacks see it
_RANKS_AGREE_EVERY = 8  # batches; agreeing costs one small reduction


class LastCheckpoint(Checkpoint):
    """Writes ``checkpoints/last.ckpt`` after every epoch and every few minutes; the one before is ``previous.ckpt``.

    The state is copied at the end of a batch or epoch, and written when Lightning has logged that batch or epoch and
    the loggers are flushed: what a checkpoint counts as done is in the curves. It is never copied where Lightning
    could not go on exactly: between the batches of one accumulated step, before a validation that is due, at the last
    batch of an epoch (the epoch's own checkpoint follows).

    On Ctrl-C and SIGTERM it saves at the next such moment and ends the process with status 130 or 143, if
    `STOP_REQUEST` listens, as it does in the ``fmnist`` command.

    Give it to the Trainer together with `DurableCheckpointIO`. Costs a copy of the state in memory while it is written.

    Args:
        every_n_minutes: Save within an epoch when so much time has passed since the last save. None: only after epochs.
        every_n_batches: Save within an epoch after every this many of its batches. None: by time only.
    """

    def __init__(self, every_n_minutes: float | None = 5.0, every_n_batches: int | None = None) -> None:
        if every_n_minutes is not None and every_n_minutes <= 0:
            raise UserError(f"--checkpoint.every_n_minutes must be above 0, got {every_n_minutes}.", exit_code=2)
        if every_n_batches is not None and every_n_batches < 1:
            raise UserError(f"--checkpoint.every_n_batches must be at least 1, got {every_n_batches}.", exit_code=2)
        self.every_n_minutes, self.every_n_batches = every_n_minutes, every_n_batches
        self.path: Path | None = None
        self._pending: dict[str, Any] | None = None
        self._wanted = False
        self._stopping = False
        self._stopped_early = False
        self._metrics: dict[str, Tensor] = {}
        self._max_steps: int | None = None
        self._saved_at = 0.0

    @property
    def state_key(self) -> str:
        """The same for every kind of it."""
        return LastCheckpoint.__name__

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the folder, and delete what a killed run left half written."""
        # The last of all: the state of every other callback is then that of the end of the batch or epoch.
        trainer.callbacks = [*(callback for callback in trainer.callbacks if callback is not self), self]  # type: ignore[attr-defined]
        if stage != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"
        self.path = folder / LAST
        self._pending, self._wanted, self._stopping = None, False, False
        if trainer.is_global_zero:
            remove_stale_temporaries(folder)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore what Lightning does not: that training was to stop, and the figures logged so far."""
        trainer.should_stop = trainer.should_stop or self._stopped_early
        trainer._logger_connector._callback_metrics.update(self._metrics)
        if self._metrics and trainer.max_steps != -1:
            # With a limit of steps Lightning takes the end of an epoch for its middle, and trains that epoch again.
            self._max_steps, trainer.fit_loop.epoch_loop.max_steps = trainer.max_steps, -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; from now on a signal waits for the end of the batch."""
        # Lightning does this when it makes the loaders; a schedule that asks for the number of steps has them made
        # before there is anything to load, and the epoch would start over. Without effect if it has been done.
        trainer.fit_loop._load_combined_loader_states()
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps = self._max_steps
            self._max_steps = None
        self._saved_at = time.monotonic()
        if self.path is not None:
            STOP_REQUEST.defer()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:  # noqa: ANN401
        """The batch before has been logged: write its state."""
        self._write(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Copy the state if a checkpoint is due."""
        self._wanted = self._wanted or self._is_due(trainer, batch_idx)
        if self._wanted and not _validation_follows(trainer):
            self._take_within_epoch(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A validation in the middle of an epoch is over: the copy that had to wait for it can be made."""
        if self._wanted and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._take_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the state; Lightning logs the epoch's figures only after this."""
        self._take(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch before has been logged: write its state."""
        self._stopping = self._stopping or _any_rank(trainer, STOP_REQUEST.number is not None)
        self._write(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the last epoch's state; from now on a signal ends the process at once."""
        self._stopping = self._stopping or _any_rank(trainer, STOP_REQUEST.number is not None)
        STOP_REQUEST.act()
        self._write(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say how to go on, and leave no other rank waiting for this one."""
        STOP_REQUEST.act()
        if trainer.is_global_zero and isinstance(exception, Stopped) and self.path is not None:
            print(f"Stopped by {exception.reason}. {self._how_to_go_on()}", file=sys.stderr, flush=True)
        if not self._stopping:  # otherwise every rank stops of its own accord
            end_launched_ranks(trainer)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the figures that were logged until they can be handed to the trainer."""
        self._metrics = checkpoint.get(METRICS, {})

    def state_dict(self) -> dict[str, Any]:
        """Whether the training was about to end before its last epoch."""
        return {"stopped_early": self._stopped_early}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._stopped_early = state_dict["stopped_early"]

    def _is_due(self, trainer: pl.Trainer, batch_idx: int) -> bool:
        """Whether to save at this batch; the same on every rank."""
        if self.path is None:
            return False
        if trainer.world_size == 1 or (batch_idx + 1) % _RANKS_AGREE_EVERY == 0:
            # The first rank's clock decides for all; a signal may reach any rank.
            minutes = (time.monotonic() - self._saved_at) / 60
            late = self.every_n_minutes is not None and minutes >= self.every_n_minutes and trainer.is_global_zero
            self._stopping = self._stopping or _any_rank(trainer, STOP_REQUEST.number is not None)
            if self._stopping or _any_rank(trainer, late):
                return True
        return self.every_n_batches is not None and (batch_idx + 1) % self.every_n_batches == 0

    def _take_within_epoch(self, trainer: pl.Trainer) -> None:
        loop = trainer.fit_loop.epoch_loop
        if not loop._should_accumulate() and not loop._num_ready_batches_reached():
            self._take(trainer)

    def _take(self, trainer: pl.Trainer) -> None:
        """Copy the state of all ranks as it is now."""
        if self.path is None:
            return
        self._wanted = False
        self._stopped_early = trainer.should_stop
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        # As it says where the run stands when it is read; Lightning's own "epoch" is that of the last whole one.
        checkpoint[RESUMABLE] = {
            "epoch": trainer.current_epoch,
            "batches": trainer.fit_loop.epoch_loop.batch_progress.current.ready,
            "batches_per_epoch": int(trainer.num_training_batches),
            "world_size": trainer.world_size,
        }
        checkpoint[METRICS] = dict(trainer.callback_metrics)
        self._pending = copy.deepcopy(checkpoint)

    def _write(self, trainer: pl.Trainer) -> None:
        """Write the copied state, if there is one, after everything that was logged up to it; then stop if asked."""
        if self._pending is None or self.path is None:
            return
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()
        trainer.strategy.save_checkpoint(self._pending, self.path, storage_options={KEEP_AS: PREVIOUS})
        trainer.strategy.barrier("checkpoint written")
        self._pending = None
        self._saved_at = time.monotonic()
        if self._stopping:
            # A launched rank ends as if all were well: Lightning kills everything when one reports a failure.
            status = 0 if _is_launched_here(trainer) and not trainer.is_global_zero else None
            raise Stopped(STOP_REQUEST.number or 15, status)

    def _how_to_go_on(self) -> str:
        assert self.path is not None
        if not self.path.is_file():
            return "Nothing had been saved yet."
        return f"Saved: {self.path}\nGo on with: fmnist fit --resume {self.path.parent.parent}"


def _validation_follows(trainer: pl.Trainer) -> bool:
    """Whether Lightning validates after this batch. On resuming from before a validation it would leave it out."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def _any_rank(trainer: pl.Trainer, flag: bool) -> bool:
    return flag if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(flag, all=False)


def _is_launched_here(trainer: pl.Trainer) -> bool:
    """Whether Lightning itself started the other ranks of this machine."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return trainer.world_size > 1 and environment is not None and not environment.creates_processes_externally


def end_launched_ranks(trainer: pl.Trainer, patience: float = 3.0) -> None:
    """End the ranks that this process started, which may wait for it for ever; one that failed first says why."""
    processes: list[subprocess.Popen] = getattr(trainer.strategy.launcher, "procs", [])
    until = time.monotonic() + patience
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
        if process.poll() is None:
            process.kill()
