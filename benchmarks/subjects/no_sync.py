"""A callback that forbids host synchronisations between the first and the last batch of an epoch."""

import pytorch_lightning as pl
import torch


class NoSynchronisation(pl.Callback):
    """Sets torch's sync debug mode to "error" from the second batch of an epoch to the start of the last.

    The first epoch is left out: lazily made states and kernels synchronise once.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: object, index: int) -> None:
        """Switch on at the second batch, off before the last."""
        inside = trainer.current_epoch > 0 and 1 <= index < int(trainer.num_training_batches) - 1
        torch.cuda.set_sync_debug_mode("error" if inside else "default")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Switch off, so that the report of the error may synchronise."""
        torch.cuda.set_sync_debug_mode("default")
