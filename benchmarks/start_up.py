"""How long `fmnist fit` takes from its start to the first training step."""

import os
import subprocess
import sys
import time

import pytorch_lightning as pl

from benchmarks.channel import ROOT
from benchmarks.groups import Workshop


class FirstStep(pl.Callback):
    """Says that the first training step begins, and ends the process."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: object, index: int) -> None:
        """Say so."""
        print("first step", flush=True)
        os._exit(0)


def seconds_to_first_step(workshop: Workshop) -> float:
    """Wall time of the command, monitors on, data present."""
    command = [
        *(sys.executable, "-m", "fmnist_pl", "fit", f"--data.root={workshop.data}"),
        f"--trainer.logger.init_args.save_dir={workshop.folder}",
        "--trainer.callbacks+=benchmarks.start_up.FirstStep",
    ]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=workshop.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if "first step" not in done.stdout:
        raise RuntimeError(f"fmnist fit did not reach a step:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds
