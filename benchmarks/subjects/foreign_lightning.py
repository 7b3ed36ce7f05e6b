"""Networks that are not ours in a plain Lightning program: one round is one epoch, from its start to the next's."""

import tempfile

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from benchmarks.channel import contender_parser
from benchmarks.subjects.naive_lightning import NaiveClassifier
from benchmarks.subjects.our_lightning import EpochGate
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor

NETWORKS = {
    "ResNet-18": lambda: resnet18(num_classes=10),
    "500 ReLU sites": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(3072, 16), *(layer for _ in range(500) for layer in (nn.ReLU(), nn.Linear(16, 16)))
    ),
}
MONITORS = {
    "off": lambda: [],
    "dead": lambda: [DeadReLUMonitor()],
    "hist-10": lambda: [
        WeightHistogramMonitor(["net.[!l]*", "net.layer[1-3]*", "net.layer4.1.conv1*", "net.layer4.0.bn1*"])
    ],
    "hist-22": lambda: [WeightHistogramMonitor(["net.[!l]*", "net.layer[2-4]*"])],
    "all": lambda: [DeadReLUMonitor(), WeightHistogramMonitor(), TrainValGapMonitor()],
}
VALIDATION = 10  # batches


class ValidatedClassifier(NaiveClassifier):
    """A given network, validated."""

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """One batch."""
        logits = self.net(batch[0])
        self.log("val/loss", F.cross_entropy(logits, batch[1]))
        self.log("val/accuracy", (logits.argmax(dim=1) == batch[1]).float().mean())


def main() -> None:
    """Rounds of one epoch of ``--steps`` steps, and where asked for of `VALIDATION` batches."""
    parser = contender_parser(__doc__)
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--monitors", choices=MONITORS, default="off")
    parser.add_argument("--alternate", action="store_true", help="With the monitors in every second epoch only.")
    parser.add_argument("--validation", action="store_true")
    arguments = parser.parse_args()
    sizes = [batches * arguments.batch_size for batches in (arguments.steps, VALIDATION)]
    train, val = (TensorDataset(torch.randn(n, 3, 32, 32), torch.randint(10, (n,))) for n in sizes)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=-1,
            accelerator="cpu",
            limit_val_batches=1.0 if arguments.validation else 0,
            logger=TensorBoardLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*MONITORS[arguments.monitors](), EpochGate(arguments.steps, arguments.alternate)],
        )
        loaders = DataLoader(train, arguments.batch_size, shuffle=True), DataLoader(val, arguments.batch_size)
        trainer.fit(ValidatedClassifier(NETWORKS[arguments.network]()), *loaders)


if __name__ == "__main__":
    main()
