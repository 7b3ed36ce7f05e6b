"""The callbacks that keep checkpoints: of the best epoch, and of the last, to resume as if it had never stopped."""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from fmnist_pl.checkpoints.checkpoint_file import BEST, HOLD, LAST, RESUMABLE, DurableCheckpointIO, checkpoint_bytes
from fmnist_pl.process import Stopped, replace_lightnings_handler
from fmnist_pl.runs.folder import sync_curves
from fmnist_pl.runs.record import RUN


class BestCheckpoint(ModelCheckpoint):
    """Writes ``checkpoints/best.ckpt`` whenever the monitored value is the lowest so far.

    Lightning's callback with a fixed file name, whose best value is still known when the run's folder was moved, or
    named in another way, before the run is resumed. It logs nothing.

    Args:
        monitor: Logged value that is to be low.

    >>> BestCheckpoint().filename
    'best'
    """

    def __init__(self, monitor: str = "val/loss") -> None:
        super().__init__(monitor=monitor, filename=Path(BEST).stem, enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value, with the path that the file has now."""
        # As Lightning joins it: where it is spelled in another way, the new file is deleted as the old one.
        path = os.path.join(str(self.dirpath), BEST) if state_dict["best_model_path"] else ""
        scores = list(state_dict["best_k_models"].values())  # at most one
        self.current_score = state_dict["current_score"]
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": dict(zip([path], scores, strict=False)),
                "best_model_path": path,
                "kth_best_model_path": path,
            }
        )


class LastCheckpoint(Checkpoint):
    """Writes ``checkpoints/last.ckpt`` after every epoch; the one before it is kept as ``previous.ckpt``.

    The state is taken when everything of the epoch is over, validation and the other callbacks included, and written
    when Lightning has logged the epoch and the curves are on disk: what a checkpoint counts as done is in the curves.
    It must be the last of the Trainer's callbacks, and needs the plugin `DurableCheckpointIO`. It logs nothing.

    >>> plugins, callbacks = [DurableCheckpointIO()], [LastCheckpoint()]
    >>> trainer = pl.Trainer(plugins=plugins, callbacks=callbacks, logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._at_epoch_end = self._stopped_early = False
        self._max_epochs: int | None = None  # when it stopped early

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the folder."""
        if stage == "fit" and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.path = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / LAST

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore that training was about to end before its last epoch, unless it is to have more epochs now."""
        if self._stopped_early and self._max_epochs != trainer.max_epochs:
            for stopping in trainer.early_stopping_callbacks:
                stopping.wait_count = 0  # its patience begins again
        elif self._stopped_early:
            trainer.should_stop = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See to it that SIGTERM ends the process at once, and that what is saved can be loaded."""
        replace_lightnings_handler()
        if self.path is not None:
            states = {type(callback).__name__: callback.state_dict() for callback in trainer.callbacks}  # type: ignore[attr-defined]
            checkpoint_bytes({"callbacks": states, "hyper_parameters": dict(pl_module.hparams)})

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See to it that SIGTERM ends the process at once."""
        replace_lightnings_handler()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the state; Lightning logs the epoch's metrics only after this."""
        if self.path is not None:
            self._at_epoch_end, self._stopped_early = True, trainer.should_stop
            trainer.save_checkpoint(self.path, storage_options=HOLD)
            self._at_epoch_end = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the state of the epoch before, which has been logged."""
        if self.path is not None and trainer.is_global_zero:
            sync_curves(trainer.loggers)
            io = trainer.strategy.checkpoint_io
            assert isinstance(io, DurableCheckpointIO)
            io.write_held()
        trainer.strategy.barrier("checkpoint written")

    on_train_end = on_train_epoch_start

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Say how to resume, and leave no other rank waiting for this one."""
        if trainer.is_global_zero and isinstance(exception, Stopped) and self.path is not None:
            how = f"Resume: fmnist fit --resume {shlex.quote(str(self.path.parents[1]))}"
            saved = (
                how
                if any(self.path.with_name(name).is_file() for name in RESUMABLE)
                else "No epoch had ended: there is nothing to resume from."
            )
            print(f"Stopped by {exception.reason}. {saved}", file=sys.stderr, flush=True)
        end_launched_ranks(trainer, patience=0.0 if isinstance(exception, Stopped) else 3.0)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note the limit at which it stopped."""
        self._max_epochs = checkpoint.get(RUN, {}).get("max_epochs")

    def state_dict(self) -> dict[str, Any]:
        """Whether this is the state at an epoch's end, and whether training was about to stop early."""
        return {"at_epoch_end": self._at_epoch_end, "stopped_early": self._stopped_early}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._stopped_early = state_dict["stopped_early"]


def is_resumable(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint was taken by `LastCheckpoint` when an epoch had ended."""
    return checkpoint.get("callbacks", {}).get(LastCheckpoint.__name__, {}).get("at_epoch_end", False)


def end_launched_ranks(trainer: pl.Trainer, patience: float) -> None:
    """End the ranks that this process launched, which may wait for it for ever; one that failed may first say why."""
    processes: list[subprocess.Popen] = getattr(trainer.strategy.launcher, "procs", [])
    until = time.monotonic() + patience
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
        if process.poll() is None:
            process.kill()
