"""The monitors in a project that is not fmnist_pl: two LightningModules on random images.

Run with ``python callbacks/examples/any_lightning_project.py``, then ``tensorboard --logdir example_logs``. The first
module wraps torchvision's ResNet-18, whose ReLU modules are shared and in-place, and returns per-image results for the
gap; the second has no ReLU module at all, only ``F.relu``, and no more than logs its validation means.
"""

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor

CLASSES = 10
Batch = tuple[Tensor, Tensor]


class ResNetClassifier(pl.LightningModule):
    """Returns what the gap monitor needs for exact figures: per image its loss and whether it was right."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(weights=None, num_classes=CLASSES)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy, with the running figures logged under the monitors' default keys."""
        images, labels = batch
        logits = self.net(images)
        loss = F.cross_entropy(logits, labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        self.log("train/accuracy", (logits.argmax(1) == labels).float().mean(), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Losses (N,) and correct (N,)."""
        images, labels = batch
        logits = self.net(images)
        return {"losses": F.cross_entropy(logits, labels, reduction="none"), "correct": logits.argmax(1) == labels}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class FunctionalClassifier(pl.LightningModule):
    """Only ``F.relu``, and validation means under keys of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 16, 3, stride=2), nn.Linear(16, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, 10)."""
        return self.fc(F.relu(self.conv(images)).mean(dim=(2, 3)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Means, logged."""
        logits = self(batch[0])
        self.log_dict({"val_loss": F.cross_entropy(logits, batch[1]), "val_acc": _accuracy(logits, batch[1])})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels).float().mean()


def random_images(count: int, seed: int) -> DataLoader[tuple[Tensor, ...]]:
    """Noise (3, 32, 32) with random labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, 32, 32, generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return DataLoader(TensorDataset(images, labels), batch_size=16)


def watch(module: pl.LightningModule, gap: TrainValGapMonitor, folder: Path) -> list[str]:
    """Fit for two epochs with all monitors, and return what they say."""
    dead = DeadReLUMonitor()
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name=type(module).__name__),
        callbacks=[dead, gap, WeightHistogramMonitor(["*conv1*", "*fc*"])],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    trainer.fit(module, random_images(32, seed=0), random_images(32, seed=1))
    return [dead.sentence(), gap.sentence()]


def main(folder: Path) -> list[str]:
    """Fit both modules and print what the monitors say."""
    pl.seed_everything(0, verbose=False)
    said = watch(ResNetClassifier(), TrainValGapMonitor(), folder)
    said += watch(FunctionalClassifier(), TrainValGapMonitor(accuracy_key="val_acc", loss_key="val_loss"), folder)
    print("\n".join(said))
    return said


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example_logs"))
