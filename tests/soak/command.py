"""``fmnist fit`` on data and a network so small that it can be repeated hundreds of times."""

import json
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from fmnist_pl.checkpoints.checkpoint_file import BEST, LAST, load_checked
from fmnist_pl.cli import main
from tests.soak.tensorboard_readers import python_curves
from training_health.errors import UserError

EPOCHS = 4
TINY = (
    "--data.dataset=synthetic",
    "--data.training_images=61",  # 8 batches per epoch, the last of 5 images
    "--data.batch_size=8",
    "--model.conv_channels=[2, 2]",
    "--model.hidden_units=[4]",
    f"--trainer.max_epochs={EPOCHS}",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
)
TWO_RANKS = ("--trainer.devices=2", "--trainer.strategy=ddp")
# Not compared: clock times, and where the files lie.
PASSING = {"seconds", "seconds_per_epoch", "started", "dirpath", "best_model_path", "kth_best_model_path"}
PASSING |= {"best_k_models", "last_model_path"}


class KeepEpochs(pl.Callback):
    """Copies ``last.ckpt`` to ``checkpoints/epoch<n>.ckpt`` after each epoch but the last."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == 0 and trainer.current_epoch and trainer.is_global_zero:
            folder = Path(str(trainer.loggers[0].log_dir)) / "checkpoints"
            shutil.copy(folder / LAST, folder / f"epoch{trainer.current_epoch}.ckpt")


class FailsOnOneRank(pl.Callback):
    """Raises an error on rank ``rank`` in the second step."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
        if trainer.global_rank == self.rank and trainer.global_step == 1:
            raise UserError(f"rank {self.rank} has failed.")


def fit(logs: Path, *options: str, variant: str = "baseline") -> Path:
    """Train in this process, quietly; returns the run's folder."""
    logging.getLogger(pl.__name__).setLevel(logging.ERROR)
    run = main(["fit", "--variant", variant, *TINY, f"--trainer.logger.init_args.save_dir={logs}", *options])
    return Path(str(run.trainer.log_dir))


def start(logs: Path, *options: str, variant: str = "baseline") -> subprocess.Popen[str]:
    """Train in a process of its own, whose output is to be read."""
    command = [sys.executable, "-m", "fmnist_pl", "fit", "--variant", variant, *TINY]
    paths = os.pathsep.join([str(Path.cwd()), str(Path.cwd() / "callbacks")])
    return subprocess.Popen(
        [*command, f"--trainer.logger.init_args.save_dir={logs}", *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def fit_elsewhere(logs: Path, *options: str, variant: str = "baseline") -> Path:
    """`fit` in a process of its own, or in as many as the options ask for."""
    process = start(logs, *options, variant=variant)
    said = process.communicate(timeout=300)[0]
    if process.returncode:
        raise RuntimeError(said)
    return newest(logs)


def newest(logs: Path) -> Path:
    """The run's folder that was made last."""
    return max(logs.glob("*/version_*"), key=lambda path: path.stat().st_ctime_ns)


def ending(run: Path) -> dict[str, Any]:
    """Everything that a finished run leaves."""
    summary = json.loads((run / "summary.json").read_text())
    checkpoints = {name: load_checked(run / "checkpoints" / name) for name in (LAST, BEST)}
    return {**checkpoints, "summary": summary, "curves": python_curves(run)}


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Where two nested values differ, with no tolerance; NaN equals NaN."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        same = first.shape == second.shape and torch.equal(first.nan_to_num(), second.nan_to_num())
        return [] if same else [where]
    if isinstance(first, dict) and isinstance(second, dict):
        keys = (first.keys() | second.keys()) - PASSING
        absent = [f"{where}/{key} is in one only" for key in keys if (key in first) != (key in second)]
        both = (key for key in keys if key in first and key in second)
        return sum((differences(first[key], second[key], f"{where}/{key}") for key in both), absent)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            return [f"{where} has {len(first)} and {len(second)} entries"]
        pairs = enumerate(zip(first, second, strict=True))
        return sum((differences(*pair, f"{where}/{number}") for number, pair in pairs), [])
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first) and math.isnan(second):
        return []
    return [] if first == second else [f"{where}: {first!r} and {second!r}"]
