"""The metrics of a run that are compared, each with its way to read it from ``summary.json``.

All are of the last epoch, but for the test accuracy: that is of the checkpoint which the run tested, by default the
one with the lowest validation loss, as in the notebooks of 2018.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """One compared metric: a fraction or seconds in CSV and JSON, ``scale`` times that in tables and sentences."""

    key: str
    heading: str
    read: Callable[[Summary], float | None]  # None where the run did not measure it
    scale: float = 100.0
    digits: int = 2

    def shown(self, value: float, *, sign: bool = False) -> str:
        """``value`` as it appears in tables and sentences, without its unit."""
        return f"{self.scale * value:{'+' if sign else ''}.{self.digits}f}"


def last_epoch(key: str) -> Callable[[Summary], float | None]:
    """Reader of a logged key as it was at the end of the last epoch."""
    return lambda summary: summary.get("last_epoch", {}).get(key)


def apparent_gap(summary: Summary) -> float | None:
    """Running training accuracy minus validation accuracy: the gap that the notebooks' printed metrics show."""
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


METRICS = (
    Metric("running_accuracy", "running acc. %", last_epoch("train/accuracy")),
    Metric("train_eval_accuracy", "eval-mode training acc. %", last_epoch("gap/train_eval_accuracy")),
    Metric("val_accuracy", "validation acc. %", last_epoch("val/accuracy")),
    Metric("test_accuracy", "test acc. %", lambda summary: summary.get("test", {}).get("test/accuracy")),
    Metric("gap", "gap, points", last_epoch("gap/accuracy")),
    Metric("apparent_gap", "apparent gap, points", apparent_gap),
    Metric("mode_effect", "mode effect, points", last_epoch("gap/mode_effect")),
    Metric("dead_fraction", "dead units %", last_epoch("dead_relu/total")),
    Metric("update_ratio", "update ratio, 1e-3", update_ratio, scale=1000.0),
    Metric("seconds_per_epoch", "s / epoch", lambda summary: summary.get("seconds_per_epoch"), scale=1.0, digits=1),
)
BY_KEY = {metric.key: metric for metric in METRICS}


def _printed(running: float, validation: float, test: float, seconds: float) -> dict[str, float]:
    values = {"running_accuracy": running, "val_accuracy": validation, "test_accuracy": test}
    return {**values, "apparent_gap": running - validation, "seconds_per_epoch": seconds}


# What the notebooks printed after their tenth epoch, by variant. The seconds are of a cloud GPU: shown, but no target.
PRINTED = {
    "baseline": _printed(0.9039, 0.9206, 0.9115, 78),
    "no_dropout": _printed(0.9572, 0.9206, 0.9170, 71),
    "sgd": _printed(0.7890, 0.8382, 0.8222, 76),
}
PRINTED_EPOCHS = 10
