"""Where a training step's time goes, part by part, and how fast each part with matrix work is."""

from pathlib import Path

import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.report import Report
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.dataset.files import load_split
from fmnist_pl.loader import BatchLoader, device_tensors
from fmnist_pl.process import keep_freed_memory

# Part of the step -> the profiler's names of it, and its share of the step's matrix work as multiples of one forward
# pass of (first convolution, second convolution, dense layers).
PARTS: dict[str, tuple[tuple[str, ...], tuple[int, int, int]]] = {
    "first block, forward: convolution, ReLU, pool, dropout": (("ConvReluPoolDropout",), (1, 0, 0)),
    "first block, backward": (("ConvReluPoolDropoutBackward",), (1, 0, 0)),
    "second convolution, forward": (("aten::conv2d",), (0, 1, 0)),
    "second convolution, backward": (("ConvolutionBackward0",), (0, 2, 0)),
    "second block's ReLU, pool, dropout, both ways": (("ReluPoolDropout", "ReluPoolDropoutBackward"), (0, 0, 0)),
    "dense layers, forward": (("aten::linear",), (0, 0, 1)),
    "dense layers, backward": (("AddmmBackward0",), (0, 0, 2)),
    "dropout of the dense layer, both ways": (("_DropoutByWords", "_DropoutByWordsBackward"), (0, 0, 0)),
    "Adam": (("Optimizer.step#Adam.step",), (0, 0, 0)),
}
_MACS = (28 * 28 * 4 * 64, 14 * 14 * 4 * 64 * 32, 1568 * 256 + 256 * 10)  # per image; padded positions included


def profile_step(report: Report, data: Path, steps: int = 100, batch_size: int = 64) -> None:
    """Add the parts of our step in a bare loop to the report's facts, in ms and, for matrix work, GFLOP/s.

    Args:
        report: Receives the facts.
        data: Folder that holds FashionMNIST/raw, unpacked.
        steps: How many steps are profiled, after ten to warm up. The profiler slows a step by a few percent.
        batch_size: Images per step.
    """
    keep_freed_memory()
    torch.manual_seed(0)
    images, labels = device_tensors(*load_split(data, "train"), torch.device("cpu"))
    count = batch_size * (steps + 10)
    classifier = FashionClassifier().train()
    optimizer = classifier._build_optimizer()
    batches = iter(BatchLoader(images[:count], labels[:count], batch_size, shuffle=True))

    def step() -> None:
        batch = next(batches)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(classifier.net(batch.images), batch.labels).backward()
        optimizer.step()

    for _ in range(10):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    times = {event.key: event.cpu_time_total / 1e3 / steps for event in profiler.key_averages()}  # ms per step
    # Between the first event's start and the last one's end the profiler sees everything, gaps included.
    ranges = [event.time_range for event in profiler.events()]
    whole = (max(r.end for r in ranges) - min(r.start for r in ranges)) / 1e3 / steps
    report.facts["step under the profiler, ms"] = round(whole, 2)
    rest = whole
    for part, (names, work) in PARTS.items():
        ms = sum(times.get(name, 0.0) for name in names)
        rest -= ms
        flops = 2 * batch_size * sum(share * macs for share, macs in zip(work, _MACS, strict=True))
        speed = f", {flops / ms / 1e6:.0f} GFLOP/s" if flops and ms else ""
        report.facts[part] = f"{ms:.2f} ms, {100 * ms / whole:.0f} %{speed}"
    report.facts["everything else: batch, loss, Python"] = f"{rest:.2f} ms, {100 * rest / whole:.0f} %"
