"""Fit the same module on one process and on two, and print what the monitors say: run by test_ddp.py.

A script of its own, because the second process is forked, which a test runner full of threads is no place for.
"""

import json
import sys
import tempfile
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from fmnist_pl.predictions import PredictionImages
from tests.training_health.toys import Toy, events, image_set, make_trainer
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor


class Note(pl.Callback):
    """Rank 0 writes down the monitors' summaries and the logged values."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_end(self, trainer, pl_module):
        monitors = [c for c in trainer.callbacks if hasattr(c, "summary")]
        found = {
            "metrics": {key: value.item() for key, value in trainer.callback_metrics.items()},
            "summaries": [monitor.summary() for monitor in monitors],
            "activity": [
                {name: site.activity for name, site in m._report.sites.items()}
                for m in monitors
                if isinstance(m, DeadReLUMonitor)
            ],
            "clean": not any(m._forward_hooks or m._forward_pre_hooks for m in pl_module.modules()),
        }
        everyone = [None] * trainer.world_size
        if trainer.world_size > 1:
            ours = {key: value for key, value in found["metrics"].items() if not key.startswith("train/")}
            torch.distributed.all_gather_object(everyone, ours)
            found["ranks_agree"] = everyone[0] == everyone[1]
        if trainer.is_global_zero:
            self.path.write_text(json.dumps(found))


class Planted(Toy):
    """Unit 0 fires on even images only, unit 1 on odd ones, unit 2 never, unit 3 on the very last image alone."""

    def __init__(self, exact: bool = True) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 4)), exact, 0.0)
        with torch.no_grad():
            self.net[1].weight.zero_()
            self.net[1].weight[torch.tensor([0, 1, 3]), torch.tensor([0, 1, 2])] = 1
            self.net[1].bias.copy_(torch.tensor([-0.5, -0.5, -1, -0.5]))
            self.net[3].weight.copy_(torch.arange(16).view(4, 4).sin())
            self.net[3].bias.zero_()


class WithMetricObject(Planted):
    def __init__(self) -> None:
        super().__init__(exact=False)
        self.accuracy = MulticlassAccuracy(num_classes=4, average="micro")

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        logits = self.net(images)
        self.accuracy(logits, labels)
        self.log("val/accuracy", self.accuracy)
        self.log("val/loss", nn.functional.cross_entropy(logits, labels), sync_dist=True)


def planted_images(count: int) -> TensorDataset:
    images, labels = image_set(count).tensors
    images[:, 0, 0, :3] = 0
    images[0::2, 0, 0, 0] = 1
    images[1::2, 0, 0, 1] = 1
    images[-1, 0, 0, 2] = 1
    return TensorDataset(images, labels)


def run(world: int, folder: Path, module: pl.LightningModule, monitors: list, val_images: int) -> dict:
    folder.mkdir(parents=True)
    options = {"strategy": DDPStrategy(start_method="fork", process_group_backend="gloo")} if world > 1 else {}
    trainer = make_trainer([*monitors, Note(folder / "found.json")], folder, epochs=1, devices=world, **options)
    train, val = DataLoader(image_set(24), batch_size=4), DataLoader(planted_images(val_images), batch_size=4)
    trainer.fit(module, train, val)
    return json.loads((folder / "found.json").read_text())


def confusion(world: int, folder: Path) -> str:
    options = {"strategy": DDPStrategy(start_method="fork", process_group_backend="gloo")} if world > 1 else {}
    logger = TensorBoardLogger(folder, name=None, version="run")
    names = ["a", "b", "c", "d"]
    trainer = make_trainer([PredictionImages(names)], folder, devices=world, logger=logger, **options)
    trainer.test(Planted(), DataLoader(planted_images(13), batch_size=4), verbose=False)
    (table,) = [v for tag, _, v in events(folder) if tag == "per_class_accuracy/text_summary"]
    return table.tensor.string_val[0].decode()


def main(folder: Path) -> dict:
    found = {}
    for world in (1, 2):
        pl.seed_everything(0, verbose=False)
        monitors = [DeadReLUMonitor(), WeightHistogramMonitor(), TrainValGapMonitor()]
        found[f"uneven/{world}"] = run(world, folder / f"uneven{world}", Planted(), monitors, 13)
        found[f"logged/{world}"] = run(
            world, folder / f"logged{world}", Planted(exact=False), [TrainValGapMonitor(examples=7)], 14
        )
        monitors = [TrainValGapMonitor(examples=1), DeadReLUMonitor(window="train")]  # the second process has no image
        found[f"metric/{world}"] = run(world, folder / f"metric{world}", WithMetricObject(), monitors, 14)
        found[f"confusion/{world}"] = confusion(world, folder / f"confusion{world}")
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Lightning's advice on workers and samplers
    with tempfile.TemporaryDirectory() as scratch:
        json.dump(main(Path(scratch)), sys.stdout)
