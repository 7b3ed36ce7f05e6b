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
from tests.training_health.toys import Toy, events, image_set, make_trainer, vectors
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
            "clean": not any(m._forward_hooks or m._forward_pre_hooks for m in pl_module.modules()),
        }
        if trainer.world_size > 1:
            everyone = [None] * trainer.world_size
            ours = {key: value for key, value in found["metrics"].items() if not key.startswith("train/")}
            torch.distributed.all_gather_object(everyone, ours)
            found["ranks_agree"] = everyone[0] == everyone[1]
        if trainer.is_global_zero:
            self.path.write_text(json.dumps(found))


class Planted(Toy):
    """Unit 0 fires on even examples only, unit 1 on odd ones, unit 2 never, unit 3 on the very last example alone."""

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
        logits = self.net(batch[0])
        self.accuracy(logits, batch[1])
        self.log("val/accuracy", self.accuracy)
        self.log("val/loss", nn.functional.cross_entropy(logits, batch[1]), sync_dist=True)


def planted_examples(count: int) -> DataLoader:
    images, labels = image_set(count).tensors
    images[:, 0, 0, :3] = 0
    images[0::2, 0, 0, 0] = 1
    images[1::2, 0, 0, 1] = 1
    images[-1, 0, 0, 2] = 1
    return DataLoader(TensorDataset(images, labels), batch_size=4)


def trainer_of(world: int, folder: Path, callbacks: list) -> pl.Trainer:
    options = {"strategy": DDPStrategy(start_method="fork", process_group_backend="gloo")} if world > 1 else {}
    logger = TensorBoardLogger(folder, name=None, version="run")
    return make_trainer(callbacks, folder, epochs=1, devices=world, logger=logger, **options)


def run(world: int, folder: Path, module: pl.LightningModule, monitors: list, val_examples: int) -> dict:
    trainer = trainer_of(world, folder, [*monitors, Note(folder / "found.json")])
    trainer.fit(module, DataLoader(image_set(24), batch_size=4), planted_examples(val_examples))
    activity = [vector for _, vector in vectors(folder, "activity/net")]
    return json.loads((folder / "found.json").read_text()) | {"activity": activity}


def confusion(world: int, folder: Path) -> str:
    trainer_of(world, folder, [PredictionImages(["a", "b", "c", "d"])]).test(
        Planted(), planted_examples(13), verbose=False
    )
    (table,) = [v for tag, _, v in events(folder) if tag == "per_class_accuracy/text_summary"]
    return table.tensor.string_val[0].decode()


def main(folder: Path) -> dict:
    found = {}
    for world in (1, 2):
        pl.seed_everything(0, verbose=False)
        scenarios = {
            "uneven": (Planted(), [DeadReLUMonitor(), WeightHistogramMonitor(), TrainValGapMonitor()], 13),
            "logged": (Planted(exact=False), [TrainValGapMonitor(examples=7)], 14),
            # The second process has no example of the sample.
            "metric": (WithMetricObject(), [TrainValGapMonitor(examples=1), DeadReLUMonitor(window="train")], 14),
        }
        for name, scenario in scenarios.items():
            found[f"{name}/{world}"] = run(world, folder / f"{name}{world}", *scenario)
        found[f"confusion/{world}"] = confusion(world, folder / f"confusion{world}")
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Lightning's advice on workers and samplers
    with tempfile.TemporaryDirectory() as scratch:
        json.dump(main(Path(scratch)), sys.stdout)
