"""What the monitors know of Lightning's loops, and its private parts, whose absence ends no run."""

from types import SimpleNamespace

import pytest
import torch

from tests.training_health.toys import FEW_EXAMPLES, Toy, events, fit, loader, make_trainer, pl
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor
from training_health.lightning import (
    epoch_end_step,
    is_epochs_last_batch,
    is_epochs_last_validation,
    is_of_an_epoch,
    to_device,
)
from training_health.torch_private import has_forward_hook, inner_schedulers, inside_wrapper, is_watched

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


class TwoOptimisers(Toy):
    """Two optimiser steps per batch: Lightning's own scalars count batches."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.net[layer].parameters(), 0.01) for layer in (0, 5)]


def test_records_have_the_step_of_lightnings_own_scalars(tmp_path):
    monitors = [DeadReLUMonitor(), TrainValGapMonitor(), WeightHistogramMonitor()]
    fit(TwoOptimisers(), monitors, tmp_path, logger="tensorboard")

    steps: dict[str, set[int]] = {}
    for tag, step, _ in events(tmp_path):
        steps.setdefault(tag, set()).add(step)
    for tag in ("gap", "activity/net.2", "update_ratio"):
        assert steps[f"training_health/{tag}"] == steps["val/loss"] == {4, 9}


class Halving(pl.LightningDataModule):
    """Changes each batch on its way to the device."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0] * 0.5, batch[1]


def test_the_sample_is_prepared_by_the_datamodules_hook(tmp_path):
    monitor, data = TrainValGapMonitor(), Halving()
    data.train_dataloader = data.val_dataloader = lambda: loader(13, seed=1)

    make_trainer([monitor], tmp_path).fit(Toy(), datamodule=data)

    assert monitor.summary()["loss_gap"] == pytest.approx(0, abs=1e-6)  # both sides hold the same examples


class WithoutIndex(Toy):
    """Its step takes the batch alone, which Lightning allows."""

    def validation_step(self, batch):
        return super().validation_step(batch, 0)


def test_the_sample_is_evaluated_by_a_step_that_takes_no_index(tmp_path):
    monitor = TrainValGapMonitor()

    fit(WithoutIndex(), [monitor], tmp_path)

    assert monitor.summary()["n_train"] == monitor.summary()["n_val"] > 0


def test_without_these_names_the_public_ones_stand_in(tmp_path):
    trainer = make_trainer([], tmp_path)
    renamed = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace()), global_step=5)
    module = SimpleNamespace(on_before_batch_transfer=lambda batch, dataloader_idx: batch * 0.5)

    with pytest.warns(UserWarning, match="_batches_that_stepped"):
        assert epoch_end_step(renamed) == 4
    with pytest.warns(UserWarning, match="_on_before_batch_transfer"):
        assert to_device(trainer, module, torch.ones(2)).tolist() == [0.5, 0.5]
    with pytest.warns(UserWarning, match="_results"):
        assert is_of_an_epoch(renamed, "train/loss")


def test_where_torch_cannot_be_asked_every_call_counts_as_watched(monkeypatch):
    assert not is_watched(torch.nn.ReLU())

    monkeypatch.delattr(torch.overrides, "_get_current_function_mode")
    with pytest.warns(UserWarning, match="every call counts as watched"):
        assert is_watched(torch.nn.ReLU())


def test_the_schedulers_within_a_sequential_one_are_found():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    parts = [torch.optim.lr_scheduler.ConstantLR(optimizer), torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]

    assert inner_schedulers(torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[2])) == parts
    assert inner_schedulers(parts[0]) == []


def test_the_module_within_a_compiled_one_is_found():
    module = torch.nn.ReLU()

    assert inside_wrapper(torch.compile(module)) is module
    assert inside_wrapper(module) is None


def test_a_forward_hook_is_seen_and_a_backward_hook_is_none():
    module = torch.nn.ReLU()
    module.register_full_backward_hook(lambda *_: None)
    assert not has_forward_hook(module)

    module.register_forward_pre_hook(lambda *_: None)
    assert has_forward_hook(module)
