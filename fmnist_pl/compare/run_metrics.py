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
        """``value`` as it appears in tables and sentences, without its unit.

        >>> BY_KEY["gap"].shown(-0.00001)
        '0.00'
        """
        return f"{self.scale * value:{'+' if sign else ''}z.{self.digits}f}"  # z: no -0.00


def _last(key: str) -> Callable[[Summary], float | None]:
    """Reader of a logged key as it was at the end of the last epoch."""
    return lambda summary: summary.get("last_epoch", {}).get(key)


def _apparent_gap(summary: Summary) -> float | None:
    """Running training accuracy minus validation accuracy: the gap that the notebooks' printed metrics show."""
    both = ("train/accuracy", "val/accuracy")
    of = next((one for one in reversed(summary.get("history", [])) if both[1] in one), summary.get("last_epoch", {}))
    running, validation = map(of.get, both)
    return None if running is None or validation is None else running - validation


def _update_ratio(summary: Summary) -> float | None:
    """Median of the last epoch's update ratios over the weights; biases start at zero and have no sensible ratio."""
    last = summary.get("last_epoch", {})
    weights = [key for key in last if key.startswith("update_ratio/") and key.endswith("weight")]
    ratios = [last[key] for key in weights if last[key] is not None]
    return statistics.median(ratios) if ratios else None


METRICS = (
    Metric("running_accuracy", "running acc. %", _last("train/accuracy")),
    Metric("train_eval_accuracy", "eval-mode training acc. %", _last("gap/train_eval_accuracy")),
    Metric("val_accuracy", "validation acc. %", _last("val/accuracy")),
    Metric("test_accuracy", "test acc. %", lambda summary: summary.get("test", {}).get("test/accuracy")),
    Metric("gap", "gap, points", _last("gap/accuracy")),
    Metric("apparent_gap", "apparent gap, points", _apparent_gap),
    Metric("mode_effect", "mode effect, points", _last("gap/mode_effect")),
    Metric("dead_fraction", "dead units %", _last("dead_relu/total")),
    Metric("update_ratio", "update ratio, 1e-3", _update_ratio, scale=1000.0),
    Metric("seconds_per_epoch", "s / epoch", lambda summary: summary.get("seconds_per_epoch"), scale=1.0, digits=1),
)
BY_KEY = {metric.key: metric for metric in METRICS}

# What the notebooks printed after their tenth epoch. The seconds are of a cloud GPU: shown, but no target.
_COLUMNS = ("running_accuracy", "val_accuracy", "test_accuracy", "seconds_per_epoch", "apparent_gap")
PRINTED = {  # by variant and metric
    "baseline": dict(zip(_COLUMNS, (0.9039, 0.9206, 0.9115, 78, 0.9039 - 0.9206), strict=True)),
    "no_dropout": dict(zip(_COLUMNS, (0.9572, 0.9206, 0.9170, 71, 0.9572 - 0.9206), strict=True)),
    "sgd": dict(zip(_COLUMNS, (0.7890, 0.8382, 0.8222, 76, 0.7890 - 0.8382), strict=True)),
}
PRINTED_EPOCHS = 10
