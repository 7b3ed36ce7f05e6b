"""A callback that fails on one rank of several."""

import pytorch_lightning as pl

from training_health.errors import UserError


class FailsOnOneRank(pl.Callback):
    """Raises an error on rank ``rank`` in the second step.

    Args:
        rank: Which.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == 1:
            raise UserError(f"rank {self.rank} has had enough.")
