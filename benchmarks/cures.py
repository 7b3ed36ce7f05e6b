"""What helps against dead units, from the runs of `fmnist compare`: `python -m benchmarks cures --logdir FOLDER`.

Prints, for each variant, the dead fraction before the first step and at the end, the revivals that lasted, accuracy and
time, then the differences from no cure, paired by seed, with 95 % intervals.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext

from fmnist_pl.compare.output import difference_cell, spread_cell, table
from fmnist_pl.compare.results import paired_difference, spread
from fmnist_pl.compare.run_metrics import Metric
from training_health.health.health_run import HealthRun
from training_health.health.unit_life import transitions
from training_health.log_format import PLUGIN_NAME
from training_health.tab.health_data import HealthData
from training_health.tab.loader import KEEP_ALL
from training_health.tab.payloads import new_weights

START = "start"  # folder in the log folder with the runs that measure the start
# What decides the state before the first step; runs that agree in it share one measurement.
_SAME_START = (
    "seed", "dataset", "conv_channels", "kernel_size", "stride", "convs_per_pool", "activation", "normalization",
    "hidden_units", "initialization", "standardize",
)  # fmt: skip


@dataclass(frozen=True)
class CureRun:
    """One finished run. Fractions; None where it was not measured, or cannot be."""

    variant: str
    seed: int
    dead_start: float | None
    dead_end: float | None
    lasting: float | None  # revivals that lasted three epochs or more
    lasting_given: float | None  # of these, units that had just got new weights
    val_accuracy: float | None
    test_accuracy: float | None
    seconds: float | None  # per epoch


def _column(heading: str, key: str, scale: float = 100.0, digits: int = 1) -> Metric:
    return Metric(key, heading, attrgetter(key), scale, digits)


COLUMNS = (
    _column("dead at the start, %", "dead_start"),
    _column("dead at the end, %", "dead_end"),
    _column("lasting revivals", "lasting", 1),
    _column("of these, with new weights", "lasting_given", 1),
    _column("validation accuracy, %", "val_accuracy", digits=2),
    _column("test accuracy, %", "test_accuracy", digits=2),
    _column("s / epoch", "seconds", 1),
)


def cures_table(runs: Sequence[CureRun]) -> str:
    """One row per variant: means and standard deviations over its seeds."""
    rows = [["variant", "n", *(column.heading for column in COLUMNS)]]
    for name in dict.fromkeys(run.variant for run in runs):
        mine = [run for run in runs if run.variant == name]
        rows.append([name, str(len(mine)), *(_spread(column, mine) for column in COLUMNS)])
    return table(rows)


def _spread(column: Metric, runs: Sequence[CureRun]) -> str:
    values = [value for run in runs if (value := getattr(run, column.key)) is not None]
    if not values:
        return "unknown"
    text = spread_cell(column, spread(values))
    return text if len(values) == len(runs) else f"{text} (n = {len(values)})"


def differences_table(runs: Sequence[CureRun], reference: str) -> str:
    """One row per other variant: its differences from ``reference`` over the seeds that both have."""
    rows = [["variant", "n", *(column.heading for column in COLUMNS)]]
    none = {run.seed: run for run in runs if run.variant == reference}
    for name in dict.fromkeys(run.variant for run in runs if run.variant != reference):
        pairs = [(run, none[run.seed]) for run in runs if run.variant == name and run.seed in none]
        cells = []
        for column in COLUMNS:
            values = [(getattr(ours, column.key), getattr(theirs, column.key)) for ours, theirs in pairs]
            known = [pair for pair in values if None not in pair]
            cells.append(difference_cell(column, paired_difference(*zip(*known, strict=True))) if known else "unknown")
            if known and len(known) < len(pairs):
                cells[-1] += f" (n = {len(known)})"
        rows.append([name, str(len(pairs)), *cells])
    return table(rows)


# ---- reading runs


def cure_runs(logdir: Path) -> tuple[list[CureRun], list[str]]:
    """Every finished run below ``logdir``, the first of each variant and seed, and what a reader should know."""
    starts = {_start_key(summary): _dead(summary) for _, summary in _summaries(logdir / START)}
    found: dict[tuple[str, int], CureRun] = {}
    notes, summaries = [], []
    for folder, summary in _summaries(logdir):
        key = str(summary["variant"]), int(summary["seed"])
        if key in found:
            notes.append(f"{folder} is left out: an earlier run has the same variant and seed.")
            continue
        summaries.append(summary)
        health = _health(folder)
        measured = _start_of(health)
        lasting = given = None
        if health.sites:
            marks = [(lasting_revivals(site.activity), new_weights(site)) for site in health.sites]
            lasting = float(sum(mark.sum() for mark, _ in marks))
            given = float(sum((mark & new).sum() for mark, new in marks))
        found[key] = CureRun(
            *key,
            dead_start=starts.get(_start_key(summary)) if measured is None else measured,
            dead_end=_dead(summary),
            lasting=lasting,
            lasting_given=given,
            val_accuracy=summary.get("last_epoch", {}).get("val/accuracy"),
            test_accuracy=summary.get("test", {}).get("test/accuracy"),
            seconds=summary.get("seconds_per_epoch"),
        )
    settings: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
        "numbers of epochs": lambda summary: summary.get("epochs"),
        "data": lambda summary: json.dumps(summary.get("identity", {}).get("data")),
        "versions of the libraries": lambda summary: json.dumps(summary.get("versions")),
        "versions of the code": lambda summary: summary.get("identity", {}).get("code"),
    }
    for name, read in settings.items():
        if (count := len({read(summary) for summary in summaries})) > 1:
            notes.append(f"The runs are of {count} {name}.")
    return sorted(found.values(), key=lambda run: (run.variant, run.seed)), notes


def _summaries(logdir: Path) -> list[tuple[Path, dict[str, Any]]]:
    files = sorted(logdir.glob("*/version_*/summary.json"), key=lambda file: (len(str(file)), file))
    return [(file.parent, json.loads(file.read_text(encoding="utf-8"))) for file in files]


def lasting_revivals(activity: np.ndarray) -> np.ndarray:
    """Where a unit revived for good: dead a row before, and above zero in this and the next rows, three in all.

    (E, U) bool. A revival less than three rows before the end is not among them: it is too young to tell.
    """
    alive = activity > 0
    _, lasting = transitions(activity)
    for later in (1, 2):
        known = max(len(alive) - later, 0)
        lasting[:known] &= alive[later:]
        lasting[known:] = False
    return lasting


def _start_key(summary: Mapping[str, Any]) -> str:
    return json.dumps([summary.get(name) for name in _SAME_START])


def _dead(summary: Mapping[str, Any]) -> float | None:
    return summary.get("last_epoch", {}).get("dead_relu/total")


def _health(folder: Path) -> HealthRun:
    multiplexer = EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: KEEP_ALL})
    multiplexer.AddRun(str(folder), "run")
    multiplexer.Reload()
    return HealthData(MultiplexerDataProvider(multiplexer, str(folder))).run(RequestContext(), "", "run")


def _start_of(run: HealthRun) -> float | None:
    """The dead fraction before the first step, where the log has it for every site."""
    starts = [site.start.activity for site in run.sites if site.start is not None]
    if not starts or len(starts) < len(run.sites):
        return None
    activity = np.concatenate(starts)
    known = activity[~np.isnan(activity)]
    return float((known == 0).mean()) if len(known) else None


def measure_starts(logdir: Path) -> None:
    """For each finished run without it: one step at learning rate 0, then validation, in a run of its own."""
    known = {_start_key(summary) for _, summary in _summaries(logdir / START)}
    for folder, summary in _summaries(logdir):
        key = _start_key(summary)
        if key in known or _dead(summary) is None or _start_of(_health(folder)) is not None:
            continue
        known.add(key)
        options = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--model.learning_rate=0"]
        save = f"--trainer.logger.init_args.save_dir={logdir / START}"
        config = [
            "--config",
            str(folder / "config.yaml"),
            "--test_checkpoint=none",
            "--trainer.enable_progress_bar=false",
        ]
        command = [sys.executable, "-m", "fmnist_pl", "fit", *config, *options, save]
        print(f"Measuring the start of {summary['variant']}, seed {summary['seed']} ...", file=sys.stderr, flush=True)
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"It failed: {done.stderr.strip()[-500:]}", file=sys.stderr)


def main(args: Sequence[str]) -> None:
    """Read the runs and print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks cures", description=__doc__)
    parser.add_argument("--logdir", type=Path, required=True, help="Folder that `fmnist compare` left its runs in.")
    parser.add_argument("--reference", default="no_dropout", help="The variant without a cure.")
    text = "First measure, for runs whose log lacks it, the dead fraction before the first step; seconds for each."
    parser.add_argument("--measure_start", action="store_true", help=text)
    arguments = parser.parse_args(args)
    if arguments.measure_start:
        measure_starts(arguments.logdir)
    runs, notes = cure_runs(arguments.logdir)
    if not runs:
        raise SystemExit(f"There is no finished run in {arguments.logdir}. Train with `fmnist compare --logdir` first.")
    print(cures_table(runs))
    print(
        f"\nDifferences from `{arguments.reference}`, paired by seed, ± half of the 95 % interval; bold: beyond noise\n"
    )
    print(differences_table(runs, arguments.reference))
    if notes:
        print("", *(f"- {note}" for note in notes), sep="\n")
