"""Accuracy and loss over a set of examples; the gap between two such sets, its standard error, and the gap in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from training_health.log_format import Record

NAN = math.nan


@dataclass
class Evaluation:
    """What was measured on one set of examples; NaN where unknown."""

    examples: int
    accuracy: float = NAN
    loss: float = NAN
    loss_variance: float = NAN  # of one example's loss


class Sums(NamedTuple):
    """Sums over examples on one rank: exact to add up over ranks."""

    examples: int = 0
    correct: float = NAN
    loss: float = NAN
    squared_loss: float = NAN

    def evaluation(self) -> Evaluation:
        """Means, and the sample variance of the per-example loss."""
        n = self.examples
        if n == 0:
            return Evaluation(0)
        mean = self.loss / n
        variance = max(self.squared_loss - n * mean * mean, 0.0) / (n - 1) if n > 1 and not math.isnan(mean) else NAN
        return Evaluation(n, self.correct / n, mean, variance)


def total(parts: Iterable[Sums]) -> Sums:
    """Add up the ranks' sums; a rank without examples does not make anything unknown."""
    known = [part for part in parts if part.examples]
    return Sums(*map(sum, zip(*known, strict=True))) if known else Sums()


def variance_from_batch_means(means: list[float], sizes: list[int]) -> float:
    """Estimate one example's variance from means over batches: sum n_b (m_b - m)^2 / (B - 1); NaN for one batch."""
    if len(means) < 2 or not sum(sizes):
        return NAN
    mean = sum(m * n for m, n in zip(means, sizes, strict=True)) / sum(sizes)
    return sum(n * (m - mean) ** 2 for m, n in zip(means, sizes, strict=True)) / (len(means) - 1)


@dataclass(frozen=True)
class Gap:
    """Training against validation at the same weights, both in eval mode.

    >>> gap = Gap(training=Evaluation(5000, accuracy=0.95), validation=Evaluation(5000, accuracy=0.90))
    >>> round(gap.accuracy, 4), round(gap.accuracy_se, 4), gap.beyond_noise
    (0.05, 0.0052, True)
    """

    training: Evaluation
    validation: Evaluation
    running_accuracy: float = NAN
    running_loss: float = NAN
    se_method: str = "binomial; per-example losses"

    @property
    def accuracy(self) -> float:
        """Training minus validation accuracy."""
        return self.training.accuracy - self.validation.accuracy

    @property
    def accuracy_se(self) -> float:
        """Standard error from two binomial proportions, p (1 - p) / n each."""
        sides = (self.training, self.validation)
        if any(side.examples == 0 or not 0 <= side.accuracy <= 1 for side in sides):
            return NAN
        return math.sqrt(sum(side.accuracy * (1 - side.accuracy) / side.examples for side in sides))

    @property
    def loss(self) -> float:
        """Validation minus training loss."""
        return self.validation.loss - self.training.loss

    @property
    def loss_se(self) -> float:
        """Standard error from the variance of the per-example loss, s^2 / n each."""
        sides = (self.training, self.validation)
        return math.sqrt(sum(s.loss_variance / s.examples for s in sides)) if all(s.examples for s in sides) else NAN

    @property
    def mode_effect(self) -> float:
        """Eval-mode training accuracy minus running accuracy: dropout, augmentation and averaging."""
        return self.training.accuracy - self.running_accuracy

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the gap (in accuracy; in loss without one) exceeds two standard errors; None if unknown."""
        for gap, se in ((self.accuracy, self.accuracy_se), (self.loss, self.loss_se)):
            if not math.isnan(gap) and not math.isnan(se):
                return abs(gap) > 2 * se
        return None

    def scalars(self) -> dict[str, float]:
        """Values by logged key; NaN where unknown."""
        return {
            "gap/accuracy": self.accuracy,
            "gap/accuracy_se": self.accuracy_se,
            "gap/loss": self.loss,
            "gap/loss_se": self.loss_se,
            "gap/train_eval_accuracy": self.training.accuracy,
            "gap/train_eval_loss": self.training.loss,
            "gap/mode_effect": self.mode_effect,
        }

    def columns(self) -> dict[str, float]:
        """Values by column of the record; NaN where unknown."""
        return {
            "running_accuracy": self.running_accuracy,
            "train_eval_accuracy": self.training.accuracy,
            "val_accuracy": self.validation.accuracy,
            "accuracy_gap": self.accuracy,
            "accuracy_gap_se": self.accuracy_se,
            "mode_effect": self.mode_effect,
            "running_loss": self.running_loss,
            "train_eval_loss": self.training.loss,
            "val_loss": self.validation.loss,
            "loss_gap": self.loss,
            "loss_gap_se": self.loss_se,
        }

    def record(self) -> Record:
        """The ``gap`` record: ``[n of validation, one value per column]``."""
        values = self.columns()
        content = {"columns": list(values), **self._labels()}
        return "gap", "gap", [self.validation.examples, *values.values()], content

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where unknown."""
        values = {name: None if math.isnan(value) else value for name, value in self.columns().items()}
        return {**values, **self._labels(), "beyond_noise": self.beyond_noise}

    def _labels(self) -> dict[str, Any]:
        return {"n_train": self.training.examples, "n_val": self.validation.examples, "se_method": self.se_method}


def sentence(gap: Gap | None) -> str:
    """Say how large the gap is, whether it is more than noise, and what training mode hid."""
    if gap is None:
        return "The gap was not measured: no validation has run beside training."
    train, val = gap.training, gap.validation
    sizes = f"n = {train.examples:,} each"
    if train.examples != val.examples:
        sizes = f"n = {train.examples:,} and {val.examples:,}"
    verdict = {True: ": beyond noise", False: ": within 2 standard errors, noise", None: ""}[gap.beyond_noise]
    if not math.isnan(gap.accuracy):
        text = f"The gap is {100 * gap.accuracy:.1f} ± {_number(100 * gap.accuracy_se, 1)} points"
        sides = f"training {100 * train.accuracy:.1f} %, validation {100 * val.accuracy:.1f} %"
    else:
        text = f"The gap in loss is {_number(gap.loss, 4)} ± {_number(gap.loss_se, 4)}"
        sides = f"training {_number(train.loss, 4)}, validation {_number(val.loss, 4)}"
    text += f" ({sides}, both in eval mode, {sizes}){verdict}."
    effect = 100 * gap.mode_effect
    if math.isnan(effect):
        return text
    side = "below" if effect >= 0 else "above"
    return text + (
        f" Mode effect: the running accuracy ({100 * gap.running_accuracy:.1f} %) was {abs(effect):.1f} points {side} "
        "it, through dropout, augmentation and averaging while the weights moved; that is not overfitting."
    )


def _number(value: float, digits: int) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"
