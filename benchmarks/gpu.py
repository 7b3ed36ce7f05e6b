"""On a CUDA device: naive Lightning, a resident eager loop and ours; host synchronisations; the time of a whole run."""

import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.channel import ROOT
from benchmarks.groups import FULL_EPOCH, Workshop, run_group
from benchmarks.interleave import best_of, ratio
from benchmarks.machine import machine
from benchmarks.report import Report


def on_gpu(data: Path | None, threads: int, rounds: int) -> Report:
    """All of it.

    Args:
        data: Folder that holds FashionMNIST/raw.
        threads: Of every contender.
        rounds: Interleaved rounds.

    Raises:
        SystemExit: Without a CUDA device.
    """
    if not torch.cuda.is_available():
        raise SystemExit("No CUDA device was found: bench-gpu needs one. `make bench` measures on the CPU.")
    report = Report(machine(threads) | {"gpu": torch.cuda.get_device_name()})
    report.facts["device"] = torch.cuda.get_device_name()
    with Workshop(threads, "cuda", data) as workshop:
        _pipelines(workshop, report, rounds)
        report.facts["host synchronisations inside a training epoch"] = _synchronisations(workshop)
        report.facts["10 epochs of the baseline, s (at most 15, aim 5)"] = round(_whole_run(workshop), 1)
    return report


def _pipelines(workshop: Workshop, report: Report, rounds: int) -> None:
    size = f"--steps={FULL_EPOCH}"
    naive = {
        f"naive Lightning, {workers} workers": ["naive_lightning", size, f"--workers={workers}"]
        for workers in sorted({0, 4, min(16, os.cpu_count() or 1)})
    }
    wanted = {
        "ours, fmnist fit": ["our_lightning", size],
        "ours again, fmnist fit": ["our_lightning", size],
        "resident eager loop": ["plain_loop", size],
        **naive,
    }
    result = run_group(workshop, report, "gpu", wanted, rounds)
    best = best_of(result, list(naive))
    report.ratios += [
        (ratio("A/A null: ours again / ours", result, "ours again, fmnist fit", "ours, fmnist fit"), "1"),
        (ratio(f"{best} / ours", result, best, "ours, fmnist fit"), "at least 8, aim 20"),
        (
            ratio("resident eager loop / ours", result, "resident eager loop", "ours, fmnist fit"),
            "at least 1.0, aim 2.5",
        ),
    ]


def _synchronisations(workshop: Workshop) -> str:
    """Run an epoch in which every synchronisation of host and device is an error."""
    done = _fit(
        workshop, "--trainer.max_epochs=2", "--trainer.callbacks+=benchmarks.subjects.no_sync.NoSynchronisation"
    )
    if done.returncode == 0:
        return "0"
    return "at least 1: " + done.stderr.strip().splitlines()[-1]


def _whole_run(workshop: Workshop) -> float:
    start = time.perf_counter()
    done = _fit(workshop, "--trainer.max_epochs=10")
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    return time.perf_counter() - start


def _fit(workshop: Workshop, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [
        *(sys.executable, "-m", "fmnist_pl", "fit", f"--data.root={workshop.data}", "--trainer.accelerator=gpu"),
        f"--trainer.logger.init_args.save_dir={workshop.folder}",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=workshop.folder, env=environment, capture_output=True, text=True)
