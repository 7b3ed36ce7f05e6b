"""How costs grow along one axis at a time; `benchmarks.curves` draws it."""

import gc
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.interleave import Round, summary
from benchmarks.measures import FULL_EPOCH, NOTHING, WHOLE, add_monitors
from benchmarks.results_table import Curve, Report
from benchmarks.workshop import Workshop, tell

STEPS = 10  # of an epoch in which monitors alternate
Trained = tuple[list[str], list[str], int]  # a process of 50 steps, one of epochs of `STEPS`, steps of a whole epoch
Sizes = dict[int, Path]  # and the log of each
READ, ANSWERED = "TensorBoard reads the log", "the tab answers"


def _ours(copies: int = 1, width: float = 1) -> Trained:
    """`fmnist fit` on so many copies of the training set, its layers so many times as wide."""
    filters, units = [int(64 * width), int(32 * width)], [int(256 * width)]
    command = ["our_lightning", f"--steps={FULL_EPOCH * copies}", f"--repeat={copies}"]
    command += [f"--model=--model.conv_channels={filters}", f"--model=--model.hidden_units={units}"]
    return [*command, "--only=50"], [*command, f"--only={STEPS}"], FULL_EPOCH * copies


def _foreign(network: str) -> Trained:
    command = ["foreign_lightning", f"--network={network}"]
    return [*command, "--steps=50"], [*command, f"--steps={STEPS}"], 100


TRAINED: dict[str, dict[float, Trained]] = {  # axis -> its sizes
    "width, times the baseline's": {width: _ours(width=width) for width in (0.5, 1, 2, 4)},
    "training examples": {64 * FULL_EPOCH * copies: _ours(copies) for copies in (1, 2, 5, 10)},
    "ReLU sites": {sites: _foreign(f"{sites} ReLU sites") for sites in (3, 30, 100, 500)},
    "parameters": {1e6 * millions: _foreign(f"{millions} million parameters") for millions in (0.4, 1, 5, 25)},
}
EPOCHS = (1, 10, 100, 1000)
RUNS = (1, 10, 100, 500)


def grow(workshop: Workshop, report: Report, rounds: int) -> None:
    """Measure along each axis that was asked for."""
    for axis in workshop.parts(AXES).values():
        axis(workshop, report, rounds)


def _while_training(axis: str, workshop: Workshop, report: Report, rounds: int) -> None:
    """Seconds that all monitors add to an epoch at each of the axis's sizes."""
    found = {}
    for size, (alone, short, epoch) in TRAINED[axis].items():
        wanted = {"all monitors": ("all", "none", "none")}
        found[size] = add_monitors(workshop, report, rounds, f"{axis} {size:,.9g}", alone, short, wanted, epoch, STEPS)
    lines = {"an epoch without monitors": WHOLE, "all monitors add": "all monitors", "null": NOTHING}
    report.curves[axis] = [
        Curve(name, [(size, seconds[key]) for size, seconds in found.items()]) for name, key in lines.items()
    ]


def _epochs_logged(workshop: Workshop, report: Report, rounds: int) -> None:
    _while_reading("epochs logged", _logs_after(workshop, EPOCHS), report, rounds)


def _runs_in_the_tab(workshop: Workshop, report: Report, rounds: int) -> None:
    (run,) = _logs_after(workshop, [10]).values()
    sizes = {count: workshop.folder / f"{count}_runs" for count in RUNS}
    for count, folder in sizes.items():
        for number in range(count):
            shutil.copytree(run, folder / f"variant_{number:03}" / "version_0")
    _while_reading("runs of ten epochs", sizes, report, rounds)


AXES: dict[str, Callable[[Workshop, Report, int], None]] = {
    "width": partial(_while_training, "width, times the baseline's"),
    "examples": partial(_while_training, "training examples"),
    "sites": partial(_while_training, "ReLU sites"),
    "parameters": partial(_while_training, "parameters"),
    "epochs": _epochs_logged,
    "runs": _runs_in_the_tab,
}


def _logs_after(workshop: Workshop, epochs: Sequence[int]) -> Sizes:
    """The log after each of these numbers of tiny epochs of the full network, with all monitors."""
    folder = workshop.folder / f"after_{epochs[-1]}"
    tell(f"training for {epochs[-1]} epochs")
    done = workshop.fit(
        *("--data.training_images=64", "--trainer.limit_val_batches=1", f"--trainer.max_epochs={epochs[-1] + 1}"),
        "--trainer.callbacks+=benchmarks.subjects.callbacks.CopyLog",
        *(f"--trainer.callbacks.epochs={list(epochs)}", f"--trainer.callbacks.folder={folder}"),
    )
    if not (folder / str(epochs[-1])).exists():
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return {count: folder / str(count) for count in epochs}


def _while_reading(axis: str, sizes: Sizes, report: Report, rounds: int) -> None:
    """Seconds until TensorBoard has read each log, and until the tab has answered for all its runs and for one."""
    found: dict[float, list[Round]] = {size: [] for size in sizes}
    for number in range(-1, rounds):  # interleaved, after a warm-up
        for size in sorted(sizes, reverse=number % 2 == 1):
            found[size].append(_load(sizes[size]))
            tell(f"{axis}, round {number + 1}/{rounds}: {size:,} {found[size][-1]}")
    seconds = {
        name: [(size, summary(name, [times[name] for times in loads[1:]])) for size, loads in found.items()]
        for name in found[min(found)][0]
    }
    rows = report.tables[f"{axis}, seconds, n = {rounds}"] = [[axis, "log, MiB", *seconds]]
    for size, *cells in zip(sizes, *seconds.values(), strict=True):
        mib = sum(path.stat().st_size for path in sizes[size].rglob("events.*")) / 2**20
        rows.append([f"{size:,}", f"{mib:.2f}", *(f"{s.median:.3f} ({s.low:.3f} to {s.high:.3f})" for _, s in cells)])
    report.curves[axis] = [Curve(name, seconds[name]) for name in (READ, ANSWERED)]


def _load(folder: Path) -> Round:
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext

    from training_health.tab.health_data import HealthData
    from training_health.tab.payloads import run_payload

    gc.collect()
    start = time.perf_counter()
    multiplexer = EventMultiplexer(tensor_size_guidance={"training_health": 0})
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    read = time.perf_counter()
    data, context = HealthData(MultiplexerDataProvider(multiplexer, str(folder))), RequestContext()
    rows = data.overview(context, "")["runs"]
    overview = time.perf_counter()
    run_payload(data.run(context, "", rows[0]["run"]))
    answered = time.perf_counter()
    return {READ: read - start, ANSWERED: answered - read, "of this for one run": answered - overview}
