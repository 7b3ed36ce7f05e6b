"""Networks that are not ours in a plain Lightning program: one round is one epoch, from its start to the next's."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.channel import contender_parser
from benchmarks.subjects.foreign_networks import network
from benchmarks.subjects.naive_lightning import NaiveClassifier
from benchmarks.subjects.our_lightning import EpochGate
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor

Attach = Callable[[nn.Module, Optimizer, pl.Trainer], contextlib.AbstractContextManager[Callable[[Tensor], object]]]
MONITORS = {
    "off": lambda: [],
    "dead": lambda: [DeadReLUMonitor()],
    "hist-10": lambda: [
        WeightHistogramMonitor(["net.[!l]*", "net.layer[1-3]*", "net.layer4.1.conv1*", "net.layer4.0.bn1*"])
    ],
    "hist-22": lambda: [WeightHistogramMonitor(["net.[!l]*", "net.layer[2-4]*"])],
    "hist": lambda: [WeightHistogramMonitor()],
    "gap": lambda: [TrainValGapMonitor()],
    "all": lambda: [DeadReLUMonitor(), WeightHistogramMonitor(), TrainValGapMonitor()],
    "wandb": lambda: [SwitchedPeer(watch_with_wandb)],
    "torchmortem": lambda: [SwitchedPeer(watch_with_torchmortem)],
}


class SwitchedPeer(pl.Callback):
    """Another tool, attached at the first step of an epoch and detached at its end."""

    def __init__(self, attach: Attach) -> None:
        self._attach, self._stack = attach, contextlib.ExitStack()

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: object, index: int) -> None:
        """Attach."""
        if index == 0:
            self._step = self._stack.enter_context(self._attach(module.net, trainer.optimizers[0], trainer))

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: object) -> None:  # noqa: ANN401
        """Tell it the loss."""
        self._step(outputs["loss"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Detach."""
        self._stack.close()


@contextlib.contextmanager
def watch_with_wandb(net: nn.Module, optimizer: Optimizer, trainer: pl.Trainer) -> Iterator[Callable[[Tensor], object]]:
    """W&B's histograms of all weights and gradients, once per epoch, offline."""
    import wandb

    run = wandb.run or wandb.init(mode="offline", dir=trainer.log_dir, settings=wandb.Settings(silent=True))
    run.watch(net, log="all", log_freq=int(trainer.num_training_batches))
    yield lambda loss: None
    run.log({"epoch": trainer.current_epoch})
    run.unwatch(net)


@contextlib.contextmanager
def watch_with_torchmortem(
    net: nn.Module, optimizer: Optimizer, trainer: pl.Trainer
) -> Iterator[Callable[[Tensor], object]]:
    """Torchmortem's autopsy of the epoch, without its report."""
    from torchmortem import Autopsy

    with Autopsy(net, optimizer=optimizer) as autopsy:
        yield lambda loss: autopsy.step(loss=loss.item())


class ValidatedClassifier(NaiveClassifier):
    """A given network, validated."""

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """One batch."""
        logits = self.net(batch[0])
        self.log("val/loss", F.cross_entropy(logits, batch[1]))
        self.log("val/accuracy", (logits.argmax(dim=1) == batch[1]).float().mean())


def main() -> None:
    """Rounds of one epoch of ``--steps`` steps, and where asked for of as many batches of validation."""
    parser = contender_parser(__doc__)
    parser.add_argument("--network", required=True, help="Its name in `foreign_networks.network`.")
    parser.add_argument("--monitors", choices=MONITORS, default="off")
    parser.add_argument("--alternate", action="store_true", help="With the monitors in every second epoch only.")
    parser.add_argument("--validation", action="store_true")
    arguments = parser.parse_args()
    size = arguments.steps * arguments.batch_size
    train, val = (TensorDataset(torch.randn(size, 3, 32, 32), torch.randint(10, (size,))) for _ in range(2))
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
        trainer.fit(ValidatedClassifier(network(arguments.network)), *loaders)


if __name__ == "__main__":
    main()
