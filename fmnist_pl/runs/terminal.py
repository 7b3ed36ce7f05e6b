"""What a person sees of a run: its progress, then one table, the monitors' sentences, and how to look at the curves."""

import os
import shlex
import sys
import time
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar
from rich.console import Console
from rich.table import Table

from fmnist_pl.process import printable
from fmnist_pl.runs.record import HISTORY, RunRecord


class Progress(TQDMProgressBar):
    """Lightning's bar, on a terminal; and one line when an epoch ends, with the time that the others will take."""

    BAR_FORMAT = "{desc} {percentage:3.0f} % {bar:30} {n_fmt}/{total_fmt} batches, {remaining} left{postfix}"

    def __init__(self, record: RunRecord, quiet: bool = False) -> None:
        super().__init__(refresh_rate=20, leave=False)
        self.record, self.quiet = record, quiet  # its epochs' metrics: it comes first in the trainer's list
        self._started = 0.0
        self._seconds: list[float] = []  # that each epoch of this process took

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Switch the bars off where nobody sees them move."""
        super().setup(trainer, pl_module, stage)
        if self.quiet or not sys.stdout.isatty():
            self.disable()

    def get_metrics(self, *args: Any) -> dict[str, int | str | float | dict[str, float]]:  # noqa: ANN401
        """Nothing beside the bar: an epoch's metrics have a line of their own."""
        return {}

    def init_train_tqdm(self) -> Any:  # noqa: ANN401  # Lightning's class of bars
        """A bar that goes with the training: the epochs' lines stay."""
        bar = super().init_train_tqdm()
        bar.leave = False
        return bar

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: object) -> None:
        """Note the time."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description_str(f"epoch {_of_all(trainer)}")
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's metrics."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.quiet or not trainer.is_global_zero:
            return
        known = self.record.history[-1]
        metrics = "  ".join(f"{name} {known[name]:.4f}" for name in HISTORY if name in known)
        self._seconds.append(time.perf_counter() - self._started)
        line = f"epoch {_of_all(trainer)}  {metrics}  {self._seconds[-1]:.1f} s"
        if (epochs := (trainer.max_epochs or 0) - trainer.current_epoch - 1) > 0:
            line += f"  {timedelta(seconds=round(fmean(self._seconds) * epochs))} left"
        if self.is_enabled:
            self.print(line)
        else:
            print(line, flush=True)


def _of_all(trainer: pl.Trainer) -> str:
    """Which epoch this is, of how many if that is known."""
    known = trainer.max_epochs not in {None, -1}
    return f"{trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if known else "")


def data_label(dataset: str) -> str:
    """What a result was measured on, so that nobody takes rendered images for the real ones."""
    return "SYNTHETIC images, not Fashion-MNIST" if dataset == "synthetic" else "Fashion-MNIST"


def print_summary(summary: dict[str, Any], run_folder: Path | None, quiet: bool = False) -> None:
    """Print a run's summary, as `RunRecord.summary` returns it; without a logger there is no run folder.

    In colour on a terminal, unless the environment variable NO_COLOR is set; ``quiet``: one line.
    """
    if quiet:
        of = f"{summary['variant']} on {data_label(summary['dataset'])}"
        accuracy = _percent(summary["test"].get("test/accuracy"))
        print(f"{of}: test accuracy {accuracy}" + (f", {printable(run_folder)}" if run_folder else ""))
        return
    # As wide as the table needs where it is no terminal; names are shown as they are.
    colours: Literal["auto"] | None = None if os.environ.get("NO_COLOR") else "auto"
    console = Console(color_system=colours, soft_wrap=True, highlight=False, markup=False, emoji=False)
    title = f"{summary['variant']} on {data_label(summary['dataset'])}, seed {summary['seed']}"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="dim")
    table.add_column()
    for name, value in summary_rows(summary):
        table.add_row(name, value)
    console.print()
    console.print(table)
    for sentence in summary["sentences"]:
        console.print(sentence)
    console.print()
    if run_folder is not None:
        console.print(f"Run folder: {printable(run_folder)}")
        see = f"See it all: tensorboard --logdir {printable(shlex.quote(str(run_folder.parents[1])))}"
        # its own tab hides behind an arrow where TensorBoard's bar is full
        console.print(see + (", then http://localhost:6006/#training_health" if summary["monitors"] else ""))


def summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The table's rows as (name, value)."""
    last, best, checkpoint = summary["last_epoch"], summary["best_epoch"], summary["test_checkpoint"]
    tested = f"checkpoint of epoch {(best or 0) + 1}, the lowest validation loss"
    if checkpoint == "last":
        tested = "last epoch"
    elif best is None:
        tested = "no epoch has a finite validation loss"
    if not summary["epochs"]:
        tested = "untrained weights"
    accuracy = f"{_percent(summary['test'].get('test/accuracy'))} ({tested})"
    best_accuracy = _percent(summary["best_val_accuracy"])
    running = f"{_percent(last.get('train/accuracy'))} (train mode, averaged over the epoch)"
    rows = [
        ("test accuracy", "not tested" if checkpoint == "none" else accuracy),
        ("validation accuracy", f"{_percent(last.get('val/accuracy'))} (best checkpoint: {best_accuracy})"),
        ("training accuracy, running", running),
    ]
    if "gap/train_eval_accuracy" in last:
        error = _points(last.get("gap/accuracy_se"), sign="")
        evaluated = f"{_percent(last['gap/train_eval_accuracy'])} (same weights as validation)"
        rows += [
            ("training accuracy, eval mode", evaluated),
            ("gap", f"{_points(last.get('gap/accuracy'))} points, standard error {error}"),
            ("mode effect", f"{_points(last.get('gap/mode_effect'))} points"),
        ]
    if "dead_relu/total" in last:
        rows.append(("dead fraction", _percent(last["dead_relu/total"])))
    validated = [entry["epoch"] for entry in summary["history"] if "val/loss" in entry]
    if validated and validated[-1] != summary["history"][-1]["epoch"]:
        rows.append(("validation and monitors", f"of epoch {validated[-1] + 1}, the last that was validated"))
    tested_on, there = summary["test_images"]
    if tested_on < there:
        rows.append(("test images", f"only {tested_on:,} of {there:,}"))
    if trained_on := summary["identity"]["data"]["training_images"]:
        rows.append(("training images", f"{trained_on:,}"))
    taken, there = summary["training_batches"]
    if taken < there:
        rows.append(("training batches", f"only {taken:,} of {there:,} an epoch"))
    if (done := summary["history"][-1].get("batches") if summary["history"] else None) is not None:
        rows.append(("last epoch", f"only {done:,} of {taken:,} batches"))
    seconds, watched = summary["seconds_per_epoch"], " and monitors" if summary["monitors"] else ""
    epochs = "none" if seconds is None else f"{summary['epochs']}, {seconds:.1f} s each with validation{watched}"
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    machine = f"{summary['device']} x {summary['devices']}, {summary['threads']} threads; {versions}"
    return [*rows, ("epochs", epochs), ("network", f"{summary['parameters']:,} parameters"), ("measured on", machine)]


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.2f} %"


def _points(value: float | None, sign: str = "+") -> str:
    return "unknown" if value is None else f"{100 * value:{sign}z.2f}"  # z: no -0.00
