"""Monitors for any Lightning project: dead ReLU units, weight histograms, the train/validation gap.

The monitors change nothing about the training they watch; `ReviveUnits` and `GapStopping` do, on purpose.
Importing this package imports neither torch nor Lightning, so that TensorBoard can load the tab *Training Health* from
it; each monitor is imported when it is first asked for.

Public are the command ``python -m training_health``, the names below and the format of the log. All other names are
internal and may change without notice.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training_health.checking import check
    from training_health.dead_relu import DeadReLUMonitor
    from training_health.gap_stopping import GapStopping
    from training_health.initialization import lsuv, median_bias
    from training_health.inspection import inspect
    from training_health.revive_units import ReviveUnits
    from training_health.slimming.removal import slim
    from training_health.train_val_gap import TrainValGapMonitor
    from training_health.weight_histograms import WeightHistogramMonitor

__all__ = [
    "DeadReLUMonitor",
    "GapStopping",
    "ReviveUnits",
    "TrainValGapMonitor",
    "WeightHistogramMonitor",
    "check",
    "inspect",
    "lsuv",
    "median_bias",
    "slim",
]

_HOME = {
    "DeadReLUMonitor": "training_health.dead_relu",
    "GapStopping": "training_health.gap_stopping",
    "ReviveUnits": "training_health.revive_units",
    "TrainValGapMonitor": "training_health.train_val_gap",
    "WeightHistogramMonitor": "training_health.weight_histograms",
    "check": "training_health.checking",
    "inspect": "training_health.inspection",
    "lsuv": "training_health.initialization",
    "median_bias": "training_health.initialization",
    "slim": "training_health.slimming.removal",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
