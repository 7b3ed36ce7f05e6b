"""Accuracy and loss of examples: from what ``validation_step`` returns, or else from what it logs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training_health import lightning as pl
from training_health.gap.statistics import NAN, Sums, variance_from_batch_means
from training_health.tensor_statistics import exact_dtype
from training_health.training_sample.isolation import LoggedValues


class StepResults:
    """Adds up the per-example ``losses`` and ``correct`` that ``validation_step`` returns, on their device."""

    def __init__(self) -> None:
        self.examples = 0
        self._sums: dict[str, Tensor] = {}
        self._known: dict[str, int] = {"losses": 0, "correct": 0}  # examples that came with each of them

    def add(self, outputs: Any, examples: int) -> None:  # noqa: ANN401
        """Add one batch, of which the first ``examples`` count."""
        self.examples += examples
        if not isinstance(outputs, Mapping):
            return
        for name, known in self._known.items():
            values = outputs.get(name)
            if not isinstance(values, Tensor) or values.dim() != 1 or len(values) < examples:
                continue
            values = values.detach()[:examples].to(exact_dtype(values))
            self._known[name] = known + examples
            parts = torch.stack([values.sum(), values.square().sum()])
            if name in self._sums:
                self._sums[name] += parts  # in place: a new tensor per batch would wander into the holes of large ones
            else:
                self._sums[name] = parts

    def take(self) -> Sums:
        """Fetch the sums; NaN for what not every example came with."""
        complete = [name for name in self._sums if self._known[name] == self.examples]
        fetched = torch.stack([self._sums[name] for name in complete]).tolist() if complete else []
        sums = {"losses": (NAN, NAN), "correct": (NAN, NAN), **dict(zip(complete, fetched, strict=True))}
        return Sums(self.examples, sums["correct"][0], *sums["losses"])


def logged_mean(
    trainer: pl.Trainer, pl_module: pl.LightningModule, logged: LoggedValues, key: str
) -> tuple[float, float]:
    """Give the mean of what was logged under ``key`` over all ranks, and one example's variance from the batch means.

    NaN for what is unknown. A logged metric object is computed, which torchmetrics does over all ranks. Collective.
    """
    metric = next((name for name, module in pl_module.named_modules() if module is logged.metrics.get(key)), None)
    batches = logged.values.get(key, [])
    values = torch.stack([value.double().cpu() for value, _ in batches]).tolist() if batches else []
    parts = pl.every_rank(trainer, (metric, values, [weight for _, weight in batches]))
    metric = next((name for name, _, _ in parts if name is not None), None)
    if metric is not None:
        with warnings.catch_warnings():  # a rank without examples has not updated it
            warnings.filterwarnings("ignore", message="The ``compute`` method")
            return float(pl_module.get_submodule(metric).compute()), NAN  # type: ignore[operator]
    values = [value for _, part, _ in parts for value in part]
    weights = [weight for _, _, part in parts for weight in part]
    if not sum(weights):
        return NAN, NAN
    mean = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
    return mean, variance_from_batch_means(values, weights)


def validated_mean(trainer: pl.Trainer, key: str, examples: int) -> float:
    """Give the validation's own value of ``key``, weighted over the ranks by their examples; NaN if it is not logged.

    Collective. Weighting leaves a value alone that Lightning has reduced over ranks, and reduces one that it has not.
    """
    value = trainer.callback_metrics.get(key)
    parts = pl.every_rank(trainer, (NAN if value is None else float(value), examples))
    known = [(value, n) for value, n in parts if value == value and n]
    return sum(value * n for value, n in known) / sum(n for _, n in known) if known else NAN
