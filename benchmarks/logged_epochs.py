"""Size of a run's log, and the time the Training Health tab takes to show it, by the number of epochs logged."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from benchmarks.channel import ROOT
from benchmarks.groups import Workshop, tell

EPOCHS = (1, 10, 100, 1000)


class CopyLog(pl.Callback):
    """After each of `EPOCHS` epochs copies the event files next to their folder."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy what the epochs so far have left."""
        if trainer.current_epoch in EPOCHS and trainer.log_dir:
            trainer.logger.experiment.flush()  # type: ignore[union-attr]
            target = Path(trainer.log_dir).parent / f"after_{trainer.current_epoch}"
            target.mkdir()
            for events in Path(trainer.log_dir).glob("events.*"):
                shutil.copy(events, target)
        if trainer.current_epoch == max(EPOCHS):
            os._exit(0)


def logged_epochs(workshop: Workshop) -> list[dict[str, Any]]:
    """Log epochs of the baseline with all monitors, tiny epochs but the full network, then load the logs.

    Returns:
        Per number of epochs: size of the log in MiB, seconds until TensorBoard has read it, seconds until the tab's
        overview and its page of the run are answered.
    """
    command = [
        *(sys.executable, "-m", "fmnist_pl", "fit", f"--data.root={workshop.data}", "--data.training_images=64"),
        *("--trainer.limit_val_batches=1", f"--trainer.max_epochs={max(EPOCHS) + 1}"),
        f"--trainer.logger.init_args.save_dir={workshop.folder}/logs",
        "--trainer.callbacks+=benchmarks.logged_epochs.CopyLog",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(workshop.threads)}
    done = subprocess.run(command, cwd=workshop.folder, env=environment, capture_output=True, text=True)
    folders = {epochs: next(workshop.folder.glob(f"logs/*/after_{epochs}"), None) for epochs in EPOCHS}
    if None in folders.values():
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    result = [{"epochs": epochs, **_load(folder)} for epochs, folder in folders.items() if folder is not None]
    for row in result:
        tell(str(row))
    return result


def _load(folder: Path) -> dict[str, float]:
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext

    from training_health.tab.health_data import HealthData
    from training_health.tab.payloads import run_payload

    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    start = time.perf_counter()
    multiplexer = EventMultiplexer(tensor_size_guidance={"training_health": 0})
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    read = time.perf_counter()
    data, context = HealthData(MultiplexerDataProvider(multiplexer, str(folder))), RequestContext()
    (row,) = data.overview(context, "")["runs"]
    run_payload(data.run(context, "", row["run"]))
    answered = time.perf_counter()
    return {
        "log_mib": round(size, 2),
        "tensorboard_reads_s": round(read - start, 2),
        "tab_answers_s": round(answered - read, 3),
    }
