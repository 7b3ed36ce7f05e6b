"""Where an epoch ends when ``max_steps`` ends it, with and without accumulated gradients."""

import pytest
import pytorch_lightning as pl

from tests.training_health.toys import FEW_EXAMPLES, Toy, loader, make_trainer
from training_health.lightning import is_epochs_last_batch, is_epochs_last_validation

pytestmark = FEW_EXAMPLES


class Clock(pl.Callback):
    """Notes after how many batches which question was answered with yes."""

    def __init__(self):
        self.validations, self.last_validations, self.last_batches, self.last_steps = [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if is_epochs_last_batch(trainer):
            self.last_batches.append(batch_idx + 1)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if is_epochs_last_batch(trainer):
            self.last_steps.append(trainer.fit_loop.epoch_loop.batch_idx + 1)

    def on_validation_start(self, trainer, pl_module):
        batches = trainer.fit_loop.epoch_loop.batch_idx + 1
        self.validations.append(batches)
        if is_epochs_last_validation(trainer):
            self.last_validations.append(batches)


def clock_of_fit(folder, **options):
    """Fit on one epoch of at most 40 batches."""
    clock = Clock()
    trainer = make_trainer([clock], folder, epochs=1, limit_val_batches=1, **options)
    trainer.fit(Toy(), loader(80, batch_size=2), loader(4, batch_size=2))
    return clock


# With 4 batches per step, 7 steps are 28 batches: the validations come after 10 batches (5 steps left) and 20 (2 left).
@pytest.mark.parametrize(
    ("accumulated", "max_steps", "interval", "validations", "last_batch"),
    [
        (4, 7, 10, [10, 20], 28),
        (4, 5, 10, [10, 20], 20),  # the second validation is in the very last batch
        (4, 5, 9, [9, 18], 20),  # 18 is in the middle of a step: two batches are left, not four
        (3, -1, 10, [10, 20, 30, 40], 40),  # the epoch's end makes its step of one batch
        (1, 25, 10, [10, 20], 25),
    ],
)
def test_the_end_is_known_in_batches(tmp_path, accumulated, max_steps, interval, validations, last_batch):
    clock = clock_of_fit(
        tmp_path, accumulate_grad_batches=accumulated, max_steps=max_steps, val_check_interval=interval
    )

    assert clock.validations == validations
    assert clock.last_validations == validations[-1:]
    assert clock.last_batches == [last_batch]
    assert clock.last_steps == [last_batch]
