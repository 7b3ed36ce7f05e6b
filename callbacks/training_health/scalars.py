"""Log a monitor's scalars the same way everywhere."""

import math
from collections.abc import Mapping

import pytorch_lightning as pl
import torch


def log_scalars(trainer: pl.Trainer, pl_module: pl.LightningModule, values: Mapping[str, float]) -> None:
    """Log values that are the same on every rank; unknown ones (NaN) are left out.

    Args:
        trainer: The running trainer.
        pl_module: The module whose ``log`` is used, inside a hook that allows it. All ranks must call.
        values: Value per key.
    """
    known = {key: float(value) for key, value in values.items() if not math.isnan(value)}
    # Equal values keep all their bits under a maximum, not under a mean; without sync Lightning warns on many ranks.
    pl_module.log_dict(
        known, on_step=False, on_epoch=True, reduce_fx=torch.max, sync_dist=trainer.world_size > 1, batch_size=1
    )
