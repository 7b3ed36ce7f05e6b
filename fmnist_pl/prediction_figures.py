"""Pictures of predictions, rendered off screen and without pyplot's global state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

RIGHT, WRONG = "#137333", "#c5221f"  # green and red, both dark enough to read on white


def prediction_grid(images: Tensor, predicted: Sequence[str], true: Sequence[str], rows: int, columns: int) -> Figure:
    """Draw images (N, 1 or 3, H, W) in [0, 1] under "predicted (true)" in green where right and red where wrong."""
    figure = Figure(figsize=(2.4 * columns, 2.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes:
        ax.axis("off")
    for ax, image, guess, truth in zip(axes, images, predicted, true, strict=False):
        ax.imshow(image.clamp(0, 1).permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray_r", vmin=0, vmax=1)
        ax.set_title(f"{guess} ({truth})", color=RIGHT if guess == truth else WRONG, fontsize=10, parse_math=False)
    return figure


def confusion_figure(counts: Tensor, class_names: Sequence[str]) -> Figure:
    """Draw counts (classes, classes), true by predicted: percent of the true class, on a shade of that.

    It is legible at the 335 pixels that TensorBoard gives it: large digits, and nothing where it would be 0.
    """
    fractions = counts / counts.sum(1, keepdim=True).clamp_min(1)  # 0 for a class without images
    size = 1.6 + 0.36 * len(class_names)
    figure = Figure(figsize=(size, size), layout="constrained")
    ax = figure.subplots()
    ax.imshow(fractions.numpy(), cmap="Blues", vmin=0, vmax=1)
    ax.set_title("% of the true class", fontsize=11)
    ticks = range(len(class_names))
    ax.set_xticks(ticks, class_names, rotation=45, ha="right", parse_math=False)
    ax.set_yticks(ticks, class_names, parse_math=False)
    ax.set(xlabel="predicted", ylabel="true")
    for row in ticks:
        for column in ticks:
            fraction = fractions[row, column].item()
            percent = round(100 * fraction)
            text = str(percent) if percent else "·" if counts[row, column] else ""  # a dot: less than half a percent
            ax.text(column, row, text, ha="center", va="center", fontsize=12, color="wk"[fraction <= 0.5])
    return figure


def class_table(counts: Tensor, class_names: Sequence[str]) -> str:
    """Write each class's images, accuracy, and what it was mostly taken for, as a Markdown table."""
    lines = ["| class | images | accuracy | mostly taken for |", "| --- | ---: | ---: | --- |"]
    wrong = counts - counts.diagonal().diag()
    for name, right, images, row in zip(
        class_names, counts.diagonal().tolist(), counts.sum(1).tolist(), wrong, strict=True
    ):
        most = int(row.max())
        taken = f"{class_names[int(row.argmax())]} ({most:,})" if most else "-"
        lines.append(f"| {name} | {images:,} | {f'{100 * right / images:.1f} %' if images else '-'} | {taken} |")
    return "\n".join(lines)


def figure_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Render a figure to (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
