"""Callbacks that the measures add to ``fmnist fit``."""

import os
import resource
import shutil
from pathlib import Path

import pytorch_lightning as pl
import torch


class FirstStep(pl.Callback):
    """Says that the first training step begins, and ends the process."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: object, index: int) -> None:
        """Say so."""
        print("first step", flush=True)
        os._exit(0)


class PeakMemory(pl.Callback):
    """Says what the process's memory was at most, in MiB, when the test is over."""

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so."""
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB", flush=True)


class NoSynchronisation(pl.Callback):
    """Makes host synchronisations an error, from the second batch of an epoch to the start of the last.

    The first epoch is left out: lazily made states and kernels synchronise once.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: object, index: int) -> None:
        """Switch on at the second batch, off before the last."""
        inside = trainer.current_epoch > 0 and 1 <= index < int(trainer.num_training_batches) - 1
        torch.cuda.set_sync_debug_mode("error" if inside else "default")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Switch off, so that the report of the error may synchronise."""
        torch.cuda.set_sync_debug_mode("default")


class CopyLog(pl.Callback):
    """Copies the event files to a folder of each of these numbers of epochs; ends the process at the last."""

    def __init__(self, epochs: list[int], folder: str) -> None:
        self._epochs, self._folder = epochs, Path(folder)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy what the epochs so far have left."""
        if trainer.current_epoch in self._epochs and trainer.log_dir:
            trainer.logger.experiment.flush()  # type: ignore[union-attr]
            target = self._folder / str(trainer.current_epoch)
            target.mkdir(parents=True)
            for events in Path(trainer.log_dir).glob("events.*"):
                shutil.copy(events, target)
        if trainer.current_epoch == max(self._epochs):
            os._exit(0)
