"""Where an epoch ends when ``max_steps`` ends it, with and without accumulated gradients."""

import pytest

from tests.training_health.toys import FEW_EXAMPLES, Toy, loader, make_trainer, pl
from training_health.lightning import is_epochs_last_batch, is_epochs_last_validation

pytestmark = FEW_EXAMPLES
LambdaCallback = pl.callbacks.LambdaCallback


def clock_of_fit(folder, **options) -> dict[str, list[int]]:
    """After how many of an epoch's batches, at most 40, which question was answered with yes."""

    def note(name, is_last=lambda trainer: True):
        def hook(trainer, *_):
            if is_last(trainer):
                found[name].append(trainer.fit_loop.epoch_loop.batch_idx + 1)

        return hook

    found: dict[str, list[int]] = {"validations": [], "last validations": [], "last batches": [], "last steps": []}
    callbacks = [
        LambdaCallback(
            on_train_batch_start=note("last batches", is_epochs_last_batch),
            on_before_optimizer_step=note("last steps", is_epochs_last_batch),
            on_validation_start=note("validations"),
        ),
        LambdaCallback(on_validation_start=note("last validations", is_epochs_last_validation)),
    ]
    trainer = make_trainer(callbacks, folder, epochs=1, limit_val_batches=1, **options)
    trainer.fit(Toy(), loader(80, batch_size=2), loader(4, batch_size=2))
    return found


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

    assert clock == {
        "validations": validations, "last validations": validations[-1:],
        "last batches": [last_batch], "last steps": [last_batch],
    }  # fmt: skip
