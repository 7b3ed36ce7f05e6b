"""Size of a run's log, and the time the Training Health tab takes to show it, by the number of epochs logged."""

import time
from pathlib import Path
from typing import Any

from benchmarks.subjects.callbacks import COPIED_AFTER
from benchmarks.workshop import Workshop, tell


def logged_epochs(workshop: Workshop) -> list[dict[str, Any]]:
    """Log epochs of the baseline with all monitors, tiny epochs but the full network, then load the logs.

    Returns:
        Per number of epochs: size of the log in MiB, seconds until TensorBoard has read it, seconds until the tab's
        overview and its page of the run are answered.
    """
    done = workshop.fit(
        *("--data.training_images=64", "--trainer.limit_val_batches=1"),
        f"--trainer.max_epochs={max(COPIED_AFTER) + 1}",
        "--trainer.callbacks+=benchmarks.subjects.callbacks.CopyLog",
    )
    result = []
    for epochs in COPIED_AFTER:
        folder = next(workshop.folder.glob(f"logs/*/after_{epochs}"), None)
        if folder is None:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        result.append({"epochs": epochs, **_load(folder)})
        tell(str(result[-1]))
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
