"""What a first Lightning program looks like: torchvision's dataset, ToTensor, a DataLoader, stock modules."""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import FashionMNIST
from torchvision.transforms import ToTensor

from benchmarks.channel import Channel, contender_parser
from benchmarks.subjects import stock


class NaiveClassifier(pl.LightningModule):
    """Cross-entropy, accuracy, both logged at every step as in the tutorials."""

    def __init__(self, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = stock.network() if net is None else net

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """One step."""
        images, labels = batch
        logits = self.net(images)
        loss = F.cross_entropy(logits, labels)
        self.log("train/loss", loss)
        self.log("train/accuracy", (logits.argmax(dim=1) == labels).float().mean())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Keras's Adam."""
        return stock.optimizer(self.parameters())


class StepsGate(pl.Callback):
    """Times the steps of an epoch alone: from its first batch, which the workers have prepared by then."""

    def __init__(self, steps: int) -> None:
        self.steps, self._channel = steps, Channel()

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: object, index: int) -> None:
        """Wait at the first batch."""
        if index == 0:
            self._channel.begin()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self._channel.end(self.steps)


def main() -> None:
    """Rounds of one short epoch of ``--steps`` steps."""
    parser = contender_parser(__doc__)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    data = FashionMNIST(arguments.data, train=True, transform=ToTensor())
    loader = DataLoader(
        Subset(data, range(5000, 5000 + arguments.steps * arguments.batch_size)),
        batch_size=arguments.batch_size,
        shuffle=True,
        num_workers=arguments.workers,
        persistent_workers=arguments.workers > 0,
        pin_memory=arguments.device == "cuda",
    )
    trainer = pl.Trainer(
        max_epochs=-1,
        accelerator="gpu" if arguments.device == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[StepsGate(arguments.steps)],
    )
    trainer.fit(NaiveClassifier(), loader)


if __name__ == "__main__":
    main()
