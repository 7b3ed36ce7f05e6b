"""Where an epoch stands: the step its records carry, its last training step, its last validation."""

import math

import pytorch_lightning as pl


def epoch_end_step(trainer: pl.Trainer) -> int:
    """Give the step at which Lightning logs the running epoch's end values: batches that stepped, minus one.

    Valid in validation hooks and in ``on_train_epoch_end`` alike. Lightning keeps the counter private; should it
    disappear, ``global_step`` (optimiser steps) stands in for it.
    """
    loop = getattr(trainer.fit_loop, "epoch_loop", None)
    stepped = getattr(loop, "_batches_that_stepped", None)
    if stepped is None:
        return max(trainer.global_step - 1, 0)
    # The counter moves on between the epoch's last validation and `on_train_epoch_end`.
    return stepped if trainer.validating else max(stepped - 1, 0)


def is_epochs_last_validation(trainer: pl.Trainer) -> bool:
    """Tell whether no further validation follows in this epoch; True where that cannot be known."""
    batches, interval = trainer.num_training_batches, getattr(trainer, "val_check_batch", None)
    if trainer.check_val_every_n_epoch is None or math.isinf(batches) or interval is None or math.isinf(interval):
        return True
    done = trainer.fit_loop.epoch_loop.batch_idx + 1
    return done + interval > batches or batches_left(trainer, done) < interval


def is_epochs_last_batch(trainer: pl.Trainer) -> bool:
    """Tell whether the running training batch is this epoch's last, as far as the loop knows.

    Valid until the batch's optimiser step, which is when ``global_step`` moves on.
    """
    before = trainer.fit_loop.epoch_loop.batch_idx
    return trainer.is_last_batch or before + 1 >= trainer.num_training_batches or batches_left(trainer, before) <= 1


def batches_left(trainer: pl.Trainer, done: int) -> float:
    """Count the batches before ``max_steps`` ends the fit, if the epoch does not first; infinite without that limit.

    Args:
        trainer: The fitting trainer.
        done: Batches of this epoch that are done; those since the last optimiser step count towards the next.
    """
    if trainer.max_steps == -1:
        return math.inf
    per_step = trainer.accumulate_grad_batches
    return (trainer.max_steps - trainer.global_step) * per_step - done % per_step
