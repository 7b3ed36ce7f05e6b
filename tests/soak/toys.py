"""A run small enough to be repeated hundreds of times: the real module, loader, callbacks and checkpoints."""

import contextlib
import logging
import math
import random
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from fmnist_pl.augmentation import RandomShift
from fmnist_pl.checkpoints.best_checkpoint import BestCheckpoint
from fmnist_pl.checkpoints.checkpoint_file import load_checked
from fmnist_pl.checkpoints.durable_io import DurableCheckpointIO
from fmnist_pl.checkpoints.last_checkpoint import LAST, RESUMABLE, LastCheckpoint
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.loader import BatchLoader
from fmnist_pl.runs.folder import follow_curves
from fmnist_pl.runs.logger import RunLogger
from fmnist_pl.runs.record import RunRecord
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor

IMAGES, BATCH, EPOCHS = 41, 8, 3  # 6 batches per epoch, the last of one image
# Not compared: clock times, and where the files lie.
PASSING = {
    "seconds",
    "started",
    "dirpath",
    "best_model_path",
    "kth_best_model_path",
    "best_k_models",
    "last_model_path",
}


@dataclass(frozen=True)
class Toy:
    """What is trained, and how.

    Attributes:
        name: In reports.
        monitors: With the three monitors, and a TensorBoard log.
        rank: This process's number.
        world_size: Number of processes; the batch of each is that much smaller.
        images: Size of the training set.
        dropout: Rate after each block.
        batch_norm: With batch normalisation, whose statistics are those of each rank's images.
        trainer: Further options of the Trainer.
    """

    name: str = "plain"
    monitors: bool = False
    rank: int = 0
    world_size: int = 1
    images: int = IMAGES
    dropout: float = 0.3
    batch_norm: bool = True
    schedule: str = "one_cycle"
    trainer: dict[str, Any] = field(default_factory=dict)


class KeepAll(LastCheckpoint):
    """Keeps every checkpoint, by the moment it is of: ``e1b4.ckpt``."""

    def _write(self, trainer: pl.Trainer) -> None:
        if self._pending is not None and self.path is not None:
            moment = self._pending[RESUMABLE]
            self.path = self.path.with_name(f"e{moment['epoch']}b{moment['batches']}.ckpt")
        super()._write(trainer)


def loader(toy: Toy, count: int, seed: int = 0, **options: Any) -> BatchLoader:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 6, 6), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return BatchLoader(images, labels, BATCH // toy.world_size, rank=toy.rank, world_size=toy.world_size, **options)


def train(
    toy: Toy, folder: Path, checkpoint: Path | None = None, saver: LastCheckpoint | None = None
) -> tuple[pl.Trainer, FashionClassifier]:
    """Train in ``folder``, from the start or from ``checkpoint``, with every random generator in a state of its own."""
    scramble()
    torch.manual_seed(7 if checkpoint is None else random.randrange(2**31))
    model = FashionClassifier(
        conv_channels=(2, 2),
        hidden_units=(4,),
        image_size=6,
        normalization="batch" if toy.batch_norm else "none",
        conv_dropout=toy.dropout,
        hidden_dropout=toy.dropout,
        schedule=toy.schedule,
    )
    monitors = [DeadReLUMonitor(), WeightHistogramMonitor(), TrainValGapMonitor()] if toy.monitors else []
    with quiet():
        trainer = pl.Trainer(
            accelerator="cpu",
            logger=RunLogger(folder, name="", version="", default_hp_metric=False) if toy.monitors else False,
            callbacks=[
                *monitors,
                RunRecord("toy", "toy", 7, {}),
                BestCheckpoint(),
                saver or LastCheckpoint(every_n_minutes=None, every_n_batches=1),
            ],
            plugins=[DurableCheckpointIO()],
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **{"max_epochs": EPOCHS, **toy.trainer},
        )
    if toy.monitors:
        follow_curves(trainer.loggers, 0 if checkpoint is None else load_checked(checkpoint)["global_step"])
    augmentation = RandomShift(1) if toy.dropout else None
    training = loader(toy, toy.images, shuffle=True, seed=7, augmentation=augmentation)
    with quiet():
        trainer.fit(model, training, loader(toy, 15, seed=1), ckpt_path=checkpoint, weights_only=True)
    return trainer, model


def scramble() -> None:
    """Leave every global generator in an arbitrary state, as another process would."""
    seed = random.SystemRandom().randrange(2**31)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextlib.contextmanager
def quiet() -> Any:
    """Without Lightning's notices; the warnings of toy sizes say nothing here."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of training batches")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        yield


def last(folder: Path) -> Path:
    return folder / "checkpoints" / LAST


def differences(first: Any, second: Any, place: str = "") -> list[str]:
    """Where two nested values differ, with no tolerance; NaN equals NaN."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = first.shape == second.shape and torch.equal(first.nan_to_num(), second.nan_to_num())
        return [] if same else [place]
    if isinstance(first, dict) and isinstance(second, dict):
        keys = (first.keys() | second.keys()) - PASSING
        absent = [f"{place}/{key} is in one only" for key in keys if (key in first) != (key in second)]
        shared = (key for key in keys if key in first and key in second)
        return sum((differences(first[key], second[key], f"{place}/{key}") for key in shared), absent)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return [f"{place} has {len(first)} and {len(second)} entries"]
        pairs = enumerate(zip(first, second, strict=True))
        return sum((differences(*pair, f"{place}/{number}") for number, pair in pairs), [])
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first) and math.isnan(second):
        return []
    return [] if first == second else [f"{place}: {first!r} and {second!r}"]
