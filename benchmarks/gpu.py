"""On a CUDA device: naive Lightning, a resident eager loop and ours; host synchronisations; the time of a whole run."""

import os
import time

import torch

from benchmarks.groups import FULL_EPOCH, Workshop, run_group
from benchmarks.interleave import best_of, ratio
from benchmarks.report import Report


def on_gpu(workshop: Workshop, report: Report, rounds: int) -> None:
    """Ratios of whole epochs, host synchronisations inside an epoch, and the time of ten epochs."""
    report.facts["device"] = torch.cuda.get_device_name()
    size = f"--steps={FULL_EPOCH}"
    ours, again, eager = "ours, fmnist fit", "ours again, fmnist fit", "resident eager loop"
    naive = {
        f"naive Lightning, {workers} workers": ["naive_lightning", size, f"--workers={workers}"]
        for workers in sorted({0, 4, min(16, os.cpu_count() or 1)})
    }
    wanted = {ours: ["our_lightning", size], again: ["our_lightning", size], eager: ["loop", size, "--what=stock"]}
    result = run_group(workshop, report, "gpu", {**wanted, **naive}, rounds)
    best = best_of(result, list(naive))
    report.ratios += [
        (ratio("A/A null: ours again / ours", result, again, ours), "1"),
        (ratio(f"{best} / ours", result, best, ours), "at least 8, aim 20"),
        (ratio("resident eager loop / ours", result, eager, ours), "at least 1.0, aim 2.5"),
    ]
    on_device = "--trainer.accelerator=gpu"
    callback = "--trainer.callbacks+=benchmarks.subjects.callbacks.NoSynchronisation"
    done = workshop.fit(on_device, "--trainer.max_epochs=2", callback)
    found = "0" if done.returncode == 0 else "at least 1: " + done.stderr.strip().splitlines()[-1]
    report.facts["host synchronisations inside a training epoch"] = found
    start = time.perf_counter()
    done = workshop.fit(on_device, "--trainer.max_epochs=10")
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    report.facts["10 epochs of the baseline, s (at most 15, aim 5)"] = round(time.perf_counter() - start, 1)
