"""Accuracy and loss from what ``validation_step`` logs, for modules that return no per-example results."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torchmetrics import Metric

from training_health.gap.statistics import NAN, variance_from_batch_means
from training_health.lightning import LightningModule, Trainer, every_rank
from training_health.training_sample.isolation import LoggedValues


@dataclass
class LoggedMeans:
    """One key's value in each batch on one rank, with its weight; or the metric object that was logged."""

    values: list[float] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)
    metric: str | None = None  # its name in the module


def logged_mean(trainer: Trainer, pl_module: LightningModule, logged: LoggedValues, key: str) -> tuple[float, float]:
    """Give the mean of what was logged under ``key`` over all ranks, and one example's variance from the batch means.

    A logged metric object is computed, which torchmetrics does over all ranks. Collective.

    Returns:
        Mean and variance; NaN for what is unknown.
    """
    mine = LoggedMeans()
    if key in logged.metrics:
        mine.metric = next((name for name, m in pl_module.named_modules() if m is logged.metrics[key]), None)
    elif key in logged.values:
        batches = logged.values[key]
        mine.values = torch.stack([value.double().cpu() for value, _ in batches]).tolist()
        mine.weights = [weight for _, weight in batches]
    parts = every_rank(trainer, mine)
    name = next((part.metric for part in parts if part.metric is not None), None)
    if name is not None:
        return _computed(pl_module.get_submodule(name)), NAN
    values = [value for part in parts for value in part.values]
    weights = [weight for part in parts for weight in part.weights]
    if not sum(weights):
        return NAN, NAN
    mean = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    return mean, variance_from_batch_means(values, weights)


def validated_mean(trainer: Trainer, key: str, examples: int) -> float:
    """Give the validation's own value of ``key``, weighted over the ranks by their examples; NaN if it is not logged.

    Collective. Weighting leaves a value alone that Lightning has reduced over ranks, and reduces one that it has not.
    """
    value = trainer.callback_metrics.get(key)
    parts = every_rank(trainer, (NAN if value is None else float(value), examples))
    known = [(value, n) for value, n in parts if value == value and n]
    return sum(value * n for value, n in known) / sum(n for _, n in known) if known else NAN


def _computed(metric: torch.nn.Module) -> float:
    assert isinstance(metric, Metric)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="The ``compute`` method"
        )  # a rank without examples has not updated it
        return float(metric.compute())
