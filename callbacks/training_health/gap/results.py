"""Accuracy and loss of examples: from what ``validation_step`` returns, or else from what it logs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training_health import lightning as pl
from training_health.batches import BatchSize
from training_health.gap.statistics import NAN, Sums, mean_of_batches
from training_health.tensor_statistics import exact_dtype
from training_health.training_sample.isolation import LoggedValues

Everyone = Callable[[Any, Any], list[Any]]  # exchanges a payload between the processes that validate


class StepResults:
    """Adds up the per-example ``losses`` and ``correct`` that ``validation_step`` returns, on their device."""

    def __init__(self) -> None:
        self.examples = 0.0
        self._sums: dict[str, Tensor] = {}
        self._known: dict[str, float] = {"losses": 0, "correct": 0}  # examples that came with each of them

    def add(self, outputs: Any, size: BatchSize) -> None:  # noqa: ANN401
        """Add one batch; if its size is unknown, results for each example tell it."""
        examples = size.counted
        if math.isnan(examples) and isinstance(outputs, Mapping) and isinstance(outputs.get("losses"), Tensor):
            examples = len(outputs["losses"])
        self.examples += examples
        if not isinstance(outputs, Mapping) or math.isnan(examples):
            return
        for name, known in self._known.items():
            values = outputs.get(name)
            if not isinstance(values, Tensor) or values.dim() == 0 or not examples <= len(values) == values.numel():
                continue
            examples = int(examples)
            values = values.detach().reshape(-1)[:examples].to(exact_dtype(values.device))
            self._known[name] = known + examples
            parts = torch.stack([values.sum(), values.square().sum()])
            if name in self._sums:
                self._sums[name] += parts  # in place: a new tensor per batch would wander into the holes of large ones
            else:
                self._sums[name] = parts

    def has(self, name: str) -> bool:
        """Whether every example so far came with ``name``, "losses" or "correct"."""
        return name in self._sums and self._known[name] == self.examples

    def take(self) -> Sums:
        """Fetch the sums; NaN for what not every example came with."""
        complete = [name for name in self._sums if self.has(name)]
        fetched = torch.stack([self._sums[name] for name in complete]).tolist() if complete else []
        sums = {"losses": (NAN, NAN), "correct": (NAN, NAN), **dict(zip(complete, fetched, strict=True))}
        return Sums(self.examples, sums["correct"][0], *sums["losses"])


class Mean(NamedTuple):
    """A mean, its standard error and that one's degrees of freedom; NaN where unknown."""

    value: float = NAN
    se: float = NAN
    df: float = math.inf


def logged_means(trainer: pl.Trainer, everyone: Everyone, key: str, sides: Sequence[LoggedValues]) -> list[Mean]:
    """Give the means of what both sides' steps logged under ``key``, over all processes.

    Their standard errors come from the batch means; both sides count as many of them, the fewer of both. Collective.
    """
    parts = everyone(trainer, [side.numbers().get(key, []) for side in sides])
    batches = [[batch for part in parts for batch in part[side]] for side in range(len(sides))]
    fewest = min(map(len, batches))
    return [Mean(*mean_of_batches(side, fewest)) for side in batches]


def final_value(
    trainer: pl.Trainer, everyone: Everyone, pl_module: pl.LightningModule, logged: LoggedValues, key: str
) -> float:
    """Give what the sample's epoch ended with under ``key``: a metric object's value, or one logged at the end.

    A metric object is computed, which torchmetrics does over all processes; of numbers this is the mean. Collective.
    """
    metric = next((name for name, module in pl_module.named_modules() if module is logged.metrics.get(key)), None)
    value = float(logged.last[key]) if key in logged.last else NAN
    parts = everyone(trainer, (metric, value, logged.examples))
    metric = next((name for name, _, _ in parts if name is not None), None)
    if metric is not None:
        with warnings.catch_warnings():  # a rank without examples has not updated it
            warnings.filterwarnings("ignore", message="The ``compute`` method")
            return float(pl_module.get_submodule(metric).compute())  # type: ignore[operator]
    return _weighted((value, n) for _, value, n in parts)


def validated_value(trainer: pl.Trainer, everyone: Everyone, key: str, loader_idx: int, examples: float) -> float:
    """Give the validation's own value of ``key``, weighted over the processes by their examples; NaN without one.

    Collective. Weighting leaves a value alone that Lightning has reduced over ranks, and reduces one that it has not.
    """
    metrics = trainer.callback_metrics
    value = metrics.get(key, metrics.get(f"{key}/dataloader_idx_{loader_idx}"))
    return _weighted(everyone(trainer, (NAN if value is None else float(value), examples)))


def _weighted(parts: Iterable[tuple[float, float]]) -> float:
    known = [(value, 1.0 if math.isnan(n) else n) for value, n in parts if value == value and n != 0]
    return sum(value * n for value, n in known) / sum(n for _, n in known) if known else NAN
