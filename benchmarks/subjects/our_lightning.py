"""The ``fmnist fit`` command itself: one round is one epoch, from its start to the start of the next.

So a round holds whatever the command does: steps, metrics, and where asked for validation, monitors, logging and
checkpoints.
"""

import os
import tempfile
from pathlib import Path

import pytorch_lightning as pl
import torch
import yaml

from benchmarks.channel import METHODS, Channel, contender_parser
from fmnist_pl.cli import main as fmnist
from fmnist_pl.configuration import BASE, load_yaml
from fmnist_pl.data import FashionMNISTDataModule

MONITORS = {  # of those that `--monitors=off` takes out, which stay
    "off": (),
    "dead+hist": ("DeadReLUMonitor", "WeightHistogramMonitor"),
    "all": ("DeadReLUMonitor", "WeightHistogramMonitor", "TrainValGapMonitor"),
}


class EpochGate(pl.Callback):
    """Holds every epoch of ``steps`` at its start until the channel says go; reports the epoch before.

    With ``alternate`` monitors, cures and peers are taken out in every second epoch: on, off, off, on, and so on.
    """

    SWITCHED = (*MONITORS["all"], "ReviveUnits", "SwitchedPeer")

    def __init__(self, steps: int, alternate: bool = False) -> None:
        self.steps, self.alternate, self._channel = steps, alternate, Channel()
        self._everything: list[pl.Callback] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch that ended, wait, and start the clock."""
        if self._everything:  # not the first epoch
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize()
            self._channel.end(self.steps)
        self._everything = self._everything or list(trainer.callbacks)  # type: ignore[attr-defined]
        self._channel.begin()
        if self.alternate:
            on = trainer.current_epoch % 4 in (0, 3)
            kept = [c for c in self._everything if on or type(c).__name__ not in self.SWITCHED]
            trainer.callbacks = kept  # type: ignore[attr-defined]


def main() -> None:
    """Run ``fmnist fit`` for as many epochs as there are rounds."""
    parser = contender_parser(__doc__)
    parser.add_argument("--monitors", choices=[*MONITORS, *METHODS], default="off")
    parser.add_argument("--alternate", action="store_true", help="With the monitors in every second epoch only.")
    parser.add_argument("--validation", action="store_true", help="Validate after each epoch, save checkpoints.")
    parser.add_argument("--only", type=int, help="End an epoch after so many of its steps; all its images are there.")
    parser.add_argument("--repeat", type=int, default=1, help="Train on this many copies of the training set.")
    parser.add_argument("--stock", action="store_true", help="With the stock layers instead of the kernels.")
    parser.add_argument("--model", action="append", default=[], help="More options, as --model.NAME=VALUE.")
    arguments = parser.parse_args()
    if arguments.stock:
        os.environ["NUMBA_DISABLE_JIT"] = "1"  # read when the first step imports Numba
    kept: list[dict[str, object]] = []
    for entry in load_yaml(BASE)["trainer"]["callbacks"]:
        name = entry["class_path"].rsplit(".", 1)[-1]
        if name in MONITORS.get(arguments.monitors, ()) or (name not in MONITORS["all"] and arguments.validation):
            kept.append(entry)
    if arguments.monitors in METHODS:
        method = arguments.monitors.removeprefix("revive_")
        kept.append({"class_path": "training_health.ReviveUnits", "init_args": {"method": method}})
    gate = {"steps": arguments.only or arguments.steps, "alternate": arguments.alternate}
    kept.append({"class_path": f"{__name__}.EpochGate", "init_args": gate})
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "measured.yaml"
        overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": kept}}))
        options_of_fit = [
            f"--config={overlay}",
            f"--data.root={arguments.data}",
            f"--data.batch_size={arguments.batch_size}",
            f"--data.training_images={arguments.steps * arguments.batch_size // arguments.repeat}",
            f"--trainer.accelerator={'gpu' if arguments.device == 'cuda' else 'cpu'}",
            f"--trainer.logger.init_args.save_dir={folder}",
            "--trainer.max_epochs=1000000",
            *arguments.model,
        ]
        if not arguments.validation:
            options_of_fit.append("--trainer.limit_val_batches=0")
        if arguments.only:
            options_of_fit.append(f"--trainer.limit_train_batches={arguments.only}")
        if arguments.repeat > 1:
            _repeat_training_images(arguments.repeat)
        fmnist(["fit", *options_of_fit])


def _repeat_training_images(times: int) -> None:
    """Have the data module hand out the training set that many times over."""
    stock = FashionMNISTDataModule.setup

    def setup(self: FashionMNISTDataModule, stage: str) -> None:
        stock(self, stage)
        images, labels = self._tensors["train"]
        self._tensors["train"] = (images.repeat(times, 1, 1), labels.repeat(times))

    FashionMNISTDataModule.setup = setup  # type: ignore[method-assign]


if __name__ == "__main__":
    from benchmarks.subjects import our_lightning  # so that the command line finds EpochGate by its name

    our_lightning.main()
