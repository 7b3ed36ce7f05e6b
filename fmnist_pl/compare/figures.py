"""The figures of a run that are compared, each with its way to read it from ``summary.json``.

All are of the last epoch, but for the test accuracy: that is of the checkpoint which the run tested, by default the
one with the lowest validation loss, as in the notebooks.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One compared figure.

    Attributes:
        key: Its name in CSV and JSON, where values are fractions and seconds.
        heading: Its column.
        read: From a run's summary; None where the run did not measure it.
        scale: Shown are multiples: 100 for per cent and points.
        digits: Shown after the decimal point.
        unit: Of the shown value.
    """

    key: str
    heading: str
    read: Callable[[Summary], float | None]
    scale: float = 100.0
    digits: int = 2
    unit: str = "points"

    def shown(self, value: float, *, sign: bool = False) -> str:
        """``value`` as it appears in tables and sentences, without its unit."""
        return f"{self.scale * value:{'+' if sign else ''}.{self.digits}f}"


def last_epoch(key: str) -> Callable[[Summary], float | None]:
    """Reader of a logged key as it was at the end of the last epoch."""
    return lambda summary: summary.get("last_epoch", {}).get(key)


def apparent_gap(summary: Summary) -> float | None:
    """Running training accuracy minus validation accuracy: the gap that the notebooks' printed figures show."""
    running, validation = last_epoch("train/accuracy")(summary), last_epoch("val/accuracy")(summary)
    return None if running is None or validation is None else running - validation


def update_ratio(summary: Summary) -> float | None:
    """Median of the last epoch's update ratios over the weights; biases start at zero and have no sensible ratio."""
    ratios = [
        value
        for key, value in summary.get("last_epoch", {}).items()
        if key.startswith("update_ratio/") and key.endswith("weight") and value is not None
    ]
    return statistics.median(ratios) if ratios else None


FIGURES = (
    Figure("running_accuracy", "running acc. %", last_epoch("train/accuracy")),
    Figure("train_eval_accuracy", "eval-mode training acc. %", last_epoch("gap/train_eval_accuracy")),
    Figure("val_accuracy", "validation acc. %", last_epoch("val/accuracy")),
    Figure("test_accuracy", "test acc. %", lambda summary: summary.get("test", {}).get("test/accuracy")),
    Figure("gap", "gap, points", last_epoch("gap/accuracy")),
    Figure("apparent_gap", "apparent gap, points", apparent_gap),
    Figure("mode_effect", "mode effect, points", last_epoch("gap/mode_effect")),
    Figure("dead_share", "dead share %", last_epoch("dead_relu/total")),
    Figure("update_ratio", "update ratio, 1e-3", update_ratio, scale=1000.0, unit="thousandths"),
    Figure("seconds_per_epoch", "s / epoch", lambda s: s.get("seconds_per_epoch"), scale=1.0, digits=1, unit="s"),
)
BY_KEY = {figure.key: figure for figure in FIGURES}


def figures_of(summary: Summary) -> dict[str, float | None]:
    """Every figure of a run by its key."""
    return {figure.key: figure.read(summary) for figure in FIGURES}
