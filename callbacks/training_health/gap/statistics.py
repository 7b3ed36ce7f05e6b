"""Accuracy and loss over a set of examples, and the gap between two such sets with its standard error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

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
