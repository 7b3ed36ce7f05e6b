"""What the monitors use of others' private parts does what it is used for, and its absence ends no run.

(torch.compile's are tried in test_relu_sites.py and test_dead_relu.py.)
"""

from types import SimpleNamespace

import pytest
import torch

from tests.training_health.toys import FEW_EXAMPLES, Toy, events, fit, loader, make_trainer, pl
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor
from training_health.lightning import epoch_end_step, to_device
from training_health.sinks import write_text

pytestmark = FEW_EXAMPLES


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
    for tag in ("gap", "activity/2", "update_ratio"):
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


def test_without_these_names_the_public_ones_stand_in(tmp_path):
    trainer = make_trainer([], tmp_path)
    renamed = SimpleNamespace(fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace()), global_step=5)
    module = SimpleNamespace(on_before_batch_transfer=lambda batch, dataloader_idx: batch * 0.5)

    assert epoch_end_step(renamed) == 4
    assert to_device(trainer, module, torch.ones(2)).tolist() == [0.5, 0.5]
    bare = type("TensorBoardLogger", (), {"experiment": SimpleNamespace()})()
    with pytest.warns(UserWarning, match="takes no records"):
        write_text(SimpleNamespace(is_global_zero=True, loggers=[bare]), "run", {})
