"""Where a training step's time goes, operation by operation."""

from argparse import Namespace
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.results_table import Report
from benchmarks.subjects import loop
from benchmarks.workshop import Workshop

SMALLEST = 0.01  # fraction of the step below which an operation is summed up under "everything else"


def profile_step(workshop: Workshop, report: Report, batch_size: int, flops: int, steps: int = 100) -> None:
    """Add the operations of our step in a bare loop to the report's facts, in ms and percent of the step.

    An operation counts with everything that it calls; backward operations are called ``...Backward``. ``steps`` of
    ``flops`` operations are profiled after as many to warm up; the profiler slows a step by a few percent.
    """
    torch.set_num_threads(workshop.threads)
    options = {"data": workshop.data, "device": "cpu", "batch_size": batch_size, "what": "ours", "bf16": False}
    work = loop.training(Namespace(steps=steps, **options))
    work()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        work()
    outermost = [event for event in profiler.events() if event.cpu_parent is None]
    times: Counter[str] = Counter()  # ms per step
    for event in outermost:
        times[event.name.split(": ")[-1]] += event.time_range.elapsed_us() / 1e3 / steps
    # Between the first event's start and the last one's end the profiler sees everything, gaps included.
    ranges = [event.time_range for event in outermost]
    whole = (max(r.end for r in ranges) - min(r.start for r in ranges)) / 1e3 / steps
    shown = {name: ms for name, ms in times.most_common() if ms > SMALLEST * whole}
    shown["everything else"] = whole - sum(shown.values())
    report.facts["step under the profiler"] = f"{whole:.2f} ms, {flops / whole / 1e6:.0f} GFLOP/s"
    report.facts |= {name: f"{ms:.2f} ms, {100 * ms / whole:.0f} %" for name, ms in shown.items()}
