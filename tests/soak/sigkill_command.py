"""The same through the command: ``fmnist fit``, killed at any moment, then ``fmnist fit --resume last``."""

import json
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from fmnist_pl.checkpoints.checkpoint_file import load_checked
from fmnist_pl.cli import main
from tests.soak.sigkill import in_a_process
from tests.soak.tensorboard_readers import python_curves, rust_curves
from tests.soak.toys import differences, last
from training_health.errors import UserError

OPTIONS = [
    "fit",
    "--variant=baseline",
    "--data.dataset=synthetic",
    "--data.training_images=61",
    "--data.batch_size=16",
    "--model.conv_channels=[2, 2]",
    "--model.hidden_units=[4]",
    "--trainer.max_epochs=3",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.accelerator=cpu",
    "--checkpoint.every_n_batches=1",
]
RUN = Path("lightning_logs") / "baseline-synthetic" / "version_0"
NOTHING_SAVED = 3


def attempt(folder: Path) -> None:
    """Start, or go on with ``--resume last``."""
    os.chdir(folder)
    try:
        main([*OPTIONS, *(["--resume", "last"] if RUN.exists() else [])])
    except UserError as error:
        if "has no checkpoint to resume from" in str(error) or "There is no run to resume" in str(error):
            os._exit(NOTHING_SAVED)
        if "is finished" not in str(error):
            raise


def ending(folder: Path) -> dict[str, Any]:
    """Everything a run leaves, without times of day."""
    checkpoint = load_checked(last(folder / RUN))
    summary = json.loads((folder / RUN / "summary.json").read_text())
    for entry in (checkpoint["run"], summary):
        del entry["started"]
    del summary["seconds_per_epoch"]
    return {"checkpoint": checkpoint, "summary": summary, "curves": python_curves(folder / RUN)}


def check(kills: int, seed: int) -> tuple[int, int, list[str]]:
    """Kill the command until there were ``kills``; returns hits, runs and differences."""
    chance = random.Random(seed)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["DATA_DIR"] = str(Path(name) / "data")
        straight = Path(name) / "straight"
        straight.mkdir()
        assert in_a_process(lambda: attempt(straight)) == 0  # it also draws the garments
        expected = ending(straight)
        shutil.rmtree(straight)
        straight.mkdir()
        began = time.monotonic()
        assert in_a_process(lambda: attempt(straight)) == 0
        seconds = time.monotonic() - began
        hits = runs = 0
        while hits < kills:
            folder = Path(name) / f"run{runs}"
            folder.mkdir()
            runs += 1
            while True:
                after = chance.uniform(0.0, 1.1 * seconds) if hits < kills else None
                status = in_a_process(lambda folder=folder: attempt(folder), after)  # type: ignore[misc]
                if status == -signal.SIGKILL:
                    hits += 1
                elif status == NOTHING_SAVED:
                    shutil.rmtree(folder / "lightning_logs")
                else:
                    break
            if status != 0:
                found.append(f"{folder.name}: ended with status {status}")
                continue
            found += [f"{folder.name}: {place}" for place in differences(expected, ending(folder))]
            found += [f"{folder.name}: the readers differ in {place}" for place in _readers_differ(folder / RUN)]
    return hits, runs, found


def _readers_differ(folder: Path) -> list[str]:
    return differences(python_curves(folder), rust_curves(folder))


def soak() -> str:
    """40 kills."""
    hits, runs, found = check(40, seed=0)
    assert not found, "\n".join(found)
    return (
        f"{hits} SIGKILLs of the command in {runs} runs: 0 divergences of weights, summary or curves in either reader"
    )
