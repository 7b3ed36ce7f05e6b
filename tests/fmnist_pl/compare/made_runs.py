"""Runs that nobody trained: what is wanted, their summaries, and a command that stands for a training."""

import json
import sys
from pathlib import Path
from typing import Any

from fmnist_pl.compare.log_folder import WantedRun
from fmnist_pl.runs.identity import content_hash

DATA = {"dataset": "synthetic", "files": "f", "validation_images": 10, "training_images": None}
REAL = {**DATA, "dataset": "fashion_mnist"}

# Leaves what a finished training leaves: arguments are the log folder, the variant and the summary. In a log folder
# with a file `wait`, seed 1 notes its process there first, and continues when the file is gone.
_TRAINING = """
import json, os, pathlib, sys, time
logdir, variant, summary = pathlib.Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
if summary["seed"] == 1 and (logdir / "wait").exists():
    (logdir / "wait").write_text(f"{os.getpid()}.")
    while (logdir / "wait").exists():
        time.sleep(0.01)
with open(logdir / "trained.txt", "a") as count:
    count.write(f"{variant} {summary['seed']}\\n")
folder = logdir / variant / f"version_{summary['seed']}"
folder.mkdir(parents=True)
(folder / "summary.json").write_text(json.dumps(summary))
"""


def wanted(variant: str = "baseline", seed: int = 0, *, code: str = "c", data: dict[str, Any] = DATA) -> WantedRun:
    parts = {"config": content_hash([variant, seed]), "data": data, "code": code, "versions": {"torch": "2"}}
    return WantedRun(variant, seed, ("--variant", variant), {**parts, "digest": content_hash(parts)})


def summary(run: WantedRun, **metrics: float | None) -> dict[str, Any]:
    """A finished run's; ``metrics`` (test, val, ...) are fractions."""
    value = {"test": 0.9, "val": 0.91, "running": 0.92, "train_eval": 0.93, "gap": 0.02, "dead": 0.1, **metrics}
    return {
        "variant": run.name,
        "dataset": run.identity["data"]["dataset"],
        "seed": run.seed,
        "identity": run.identity,
        "epochs": 2,
        "device": "cpu",
        "threads": 1,
        "versions": {"torch": "2"},
        "test_checkpoint": "best",
        "seconds_per_epoch": 1.5,
        "history": [{"train/loss": 1.0, "val/loss": 1.0}] * 2,
        "last_epoch": {
            "train/accuracy": value["running"],
            "val/accuracy": value["val"],
            "gap/train_eval_accuracy": value["train_eval"],
            "gap/accuracy": value["gap"],
            "gap/mode_effect": 0.01,
            "dead_relu/total": value["dead"],
            "update_ratio/conv1.conv.weight": 0.001,
            "update_ratio/conv2.conv.weight": 0.003,
            "update_ratio/fc1.linear.weight": 0.002,
            "update_ratio/conv1.conv.bias": 9.0,
        },
        "test": {"test/accuracy": value["test"]},
    }


def write_summary(logdir: Path, run: WantedRun, content: dict[str, Any] | None = None, version: int = 0) -> Path:
    folder = logdir / run.name / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary(run) if content is None else content))
    return folder


def begin(logdir: Path, run: WantedRun, version: int = 50, checkpoint: str = "last.ckpt") -> Path:
    """What an interrupted run leaves."""
    folder = logdir / run.name / f"version_{version}"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / checkpoint).touch()
    (folder / "identity.json").write_text(json.dumps(run.identity))
    return folder


def pretend_to_train(run: WantedRun, logdir: Path, **metrics: float | None) -> list[str]:
    """A command line that leaves a summary and a line in ``trained.txt``, without torch."""
    return [sys.executable, "-c", _TRAINING, str(logdir), run.name, json.dumps(summary(run, **metrics))]


def trained(logdir: Path) -> list[str]:
    """What was trained in the log folder, in the order of the ends."""
    path = logdir / "trained.txt"
    return path.read_text().splitlines() if path.exists() else []
