"""The monitors in two LightningModules on random images, one with shared ReLU modules, one with ``F.relu`` alone.

Run it with ``python callbacks/examples/any_lightning_project.py``, then ``tensorboard --logdir example_logs``.
"""

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor

try:  # your project has one of the two
    import lightning.pytorch as pl
    from lightning.pytorch.loggers import TensorBoardLogger
except ImportError:
    import pytorch_lightning as pl  # type: ignore[no-redef]
    from pytorch_lightning.loggers import TensorBoardLogger  # type: ignore[assignment]

Batch = tuple[Tensor, Tensor]


class ResNetClassifier(pl.LightningModule):
    """Returns what the gap monitor needs for exact values: per example its loss and whether it was right."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(weights=None, num_classes=10)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy; the running accuracy is logged under the monitor's default key."""
        logits = self.net(batch[0])
        self.log("train/accuracy", (logits.argmax(1) == batch[1]).float().mean(), on_step=False, on_epoch=True)
        return F.cross_entropy(logits, batch[1])

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Losses (N,) and correct (N,)."""
        logits = self.net(batch[0])
        return {"losses": F.cross_entropy(logits, batch[1], reduction="none"), "correct": logits.argmax(1) == batch[1]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


class FunctionalClassifier(ResNetClassifier):
    """Has no ReLU module and no more than logs its validation means, under keys of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.fc = nn.Conv2d(3, 16, 3, stride=2), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, 10)."""
        return self.fc(F.relu(self.net(images)).mean(dim=(2, 3)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """Means, logged."""
        logits = self(batch[0])
        accuracy = (logits.argmax(1) == batch[1]).float().mean()
        self.log_dict({"val_loss": F.cross_entropy(logits, batch[1]), "val_acc": accuracy})


def random_images(count: int) -> DataLoader[tuple[Tensor, ...]]:
    """Noise (3, 32, 32) with random labels."""
    return DataLoader(TensorDataset(torch.randn(count, 3, 32, 32), torch.randint(0, 10, (count,))), batch_size=16)


def watch(module: pl.LightningModule, gap: TrainValGapMonitor, folder: str) -> None:
    """Fit for two epochs with all monitors, and print what they say."""
    dead, histograms = DeadReLUMonitor(), WeightHistogramMonitor(["*conv1*", "*fc*"])
    logger = TensorBoardLogger(folder, name=type(module).__name__)
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=2, logger=logger, callbacks=[dead, gap, histograms], **quiet)
    trainer.fit(module, random_images(32), random_images(32))
    print(dead.sentence(), gap.sentence(), sep="\n")


if __name__ == "__main__":
    pl.seed_everything(0, verbose=False)
    folder = sys.argv[1] if len(sys.argv) > 1 else "example_logs"
    watch(ResNetClassifier(), TrainValGapMonitor(), folder)
    watch(FunctionalClassifier(), TrainValGapMonitor(accuracy_key="val_acc", loss_key="val_loss"), folder)
