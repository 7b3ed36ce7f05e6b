"""The picture of how costs grow, from what `python -m benchmarks growth` wrote: `python -m benchmarks curves`."""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes

NULL = "null"
LINES = {  # name -> color and marker
    "an epoch without monitors": ("#6b7280", "s"),
    "TensorBoard reads the log": ("#6b7280", "s"),
    "all monitors add": ("#b91c1c", "o"),
    "the tab answers": ("#b91c1c", "o"),
}


def main(args: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks curves", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"), help="Folder of growth*.json.")
    parser.add_argument("--picture", type=Path, default=Path("docs/pictures/growth.png"), help="Where to draw.")
    arguments = parser.parse_args(args)
    axes: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(arguments.results.glob("growth*.json"), key=lambda path: path.stat().st_mtime):
        axes |= json.loads(path.read_text())["curves"]  # the newest of each axis
    if not axes:
        raise SystemExit(f"{arguments.results} has no growth*.json: `python -m benchmarks growth` writes it.")
    draw(axes, arguments.picture)


def draw(axes: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One panel per axis: medians with 95 % intervals, on logarithmic scales; grey is what the null leaves open."""
    columns = min(3, len(axes))
    rows = -(-len(axes) // columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(3.1 * columns, 2.7 * rows), squeeze=False)
    for panel in panels.flat[len(axes) :]:
        panel.remove()
    explained: set[str] = set()
    for panel, (axis, curves) in zip(panels.flat, axes.items(), strict=False):
        panel.set(xscale="log", yscale="log", xlabel=axis, ylabel="seconds")
        panel.yaxis.set_major_formatter("{x:g}")
        for curve in curves:
            _line(panel, curve)
        sizes = [size for size, _ in curves[0]["points"]]
        panel.set_xticks(sizes, [_short(size) for size in sizes])
        panel.xaxis.minorticks_off()
        panel.grid(alpha=0.3)
        names = {curve["name"] for curve in curves}
        if not names <= explained:  # once for panels of the same lines
            panel.legend(fontsize="small", frameon=False)
        explained |= names
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _line(panel: Axes, curve: dict[str, Any]) -> None:
    sizes, values = zip(*curve["points"], strict=True)
    if curve["name"] == NULL:  # the last, so that the scales are there
        noise = [max(abs(value["low"]), abs(value["high"])) for value in values]
        left, right, bottom, top = panel.axis()
        panel.axis((left, right, min(bottom, min(noise) / 2), top))
        panel.fill_between(sizes, noise, 1e-9, color="#6b7280", alpha=0.2, lw=0, label="what the null leaves open")
        return
    color, marker = LINES[curve["name"]]
    medians = [value["median"] for value in values]
    bars = [[v["median"] - v["low"] for v in values], [v["high"] - v["median"] for v in values]]
    panel.errorbar(sizes, medians, bars, label=curve["name"], color=color, marker=marker, ms=4, capsize=3, lw=1.2)


def _short(size: float) -> str:
    return f"{size / 1e6:g}M" if size >= 1e6 else f"{size / 1e3:.0f}k" if size >= 1e4 else f"{size:g}"
