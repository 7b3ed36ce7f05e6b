"""Accuracy and loss over a set of examples; the gap between two such sets, its standard error, and the gap in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from training_health.log_format import Record

NAN = math.nan


@dataclass
class Evaluation:
    """What was measured on one set of examples; NaN where unknown.

    Standard errors are those of means, with their degrees of freedom. Where an accuracy is a proportion of a known n,
    it has a binomial one's, with one right and one wrong example added (Agresti and Caffo, The American Statistician
    2000), or two right ones of two would be certain: sqrt(q (1 - q) (n + 2)) / n with q = (n p + 1) / (n + 2).

    >>> Evaluation(2, accuracy=1.0).accuracy_se, round(Evaluation(5000, accuracy=0.95).accuracy_se, 4)
    (0.4330127018922193, 0.0031)
    """

    examples: float
    accuracy: float = NAN
    loss: float = NAN
    loss_se: float = NAN
    loss_df: float = math.inf
    accuracy_se: float = NAN
    accuracy_df: float = math.inf

    @property
    def is_binomial(self) -> bool:
        """Whether the accuracy is a whole number of right examples of n, to a float32's rounding.

        A mean over classes is not, nor is one over pixels or tokens, which do not err independently.
        """
        right = self.examples * self.accuracy
        return self.examples > 0 and 0 <= self.accuracy <= 1 and abs(right - round(right)) <= 1e-3 + 1e-6 * right

    def __post_init__(self) -> None:
        if self.is_binomial:
            n = self.examples
            q = (n * self.accuracy + 1) / (n + 2)
            self.accuracy_se = math.sqrt(q * (1 - q) * (n + 2)) / n
            self.accuracy_df = self.examples - 1

    def set(self, name: str, value: float, se: float, df: float) -> None:
        """Give a metric its mean, standard error and degrees; an accuracy that is binomial has its own."""
        setattr(self, name, value)
        setattr(self, f"{name}_se", se)
        setattr(self, f"{name}_df", df)
        self.__post_init__()


class Sums(NamedTuple):
    """Sums over examples on one rank: exact to add up over ranks."""

    examples: float = 0
    correct: float = NAN
    loss: float = NAN
    squared_loss: float = NAN

    def evaluation(self) -> Evaluation:
        """Means, and the loss's standard error from the sample variance of the per-example loss."""
        n = self.examples
        if not n > 0:
            return Evaluation(n)
        mean = self.loss / n
        variance = max(self.squared_loss - n * mean * mean, 0.0) / (n - 1) if n > 1 and not math.isnan(mean) else NAN
        return Evaluation(n, self.correct / n, mean, math.sqrt(variance / n), n - 1)


def total(parts: Iterable[Sums]) -> Sums:
    """Add up the ranks' sums; a rank without examples does not make anything unknown."""
    known = [part for part in parts if part.examples != 0]
    return Sums(*map(sum, zip(*known, strict=True))) if known else Sums()


def mean_of_batches(batches: Sequence[tuple[float, float]], groups: int | None = None) -> tuple[float, float, float]:
    """Give the mean of batch means, its standard error and the degrees of freedom; NaN where unknown.

    With weights w_b and B batches the squared error is sum w_b (m_b - m)^2 / (B - 1) / sum w_b, with B - 1 degrees.

    Args:
        batches: Mean and weight of each.
        groups: Count as if they had been as few larger batches, of neighbours.

    >>> mean_of_batches([(1.0, 10), (3.0, 10)])
    (2.0, 1.0, 1)
    """
    mean, weight = _mean_of_group(batches)
    if not weight:
        return NAN, NAN, NAN
    count = min(groups or len(batches), len(batches))
    if count < 2:
        return mean, NAN, NAN
    cuts = [len(batches) * i // count for i in range(count + 1)]
    merged = [_mean_of_group(batches[a:b]) for a, b in itertools.pairwise(cuts)]
    return mean, math.sqrt(sum(w * (m - mean) ** 2 for m, w in merged) / (count - 1) / weight), count - 1


def _mean_of_group(batches: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Give the weighted mean of batches, 0 without any, and their weight."""
    weight = sum(w for _, w in batches)
    return (sum(m * w for m, w in batches) / weight if weight else 0.0), weight


def student_t(df: float) -> float:
    """Give the t beyond which, on both sides together, 5 % of Student's distribution lie.

    >>> round(student_t(1), 1), round(student_t(2), 2), round(student_t(math.inf), 2)
    (12.7, 4.3, 1.96)
    """
    if df > 1000:
        return NormalDist().inv_cdf(0.975)
    # t = sqrt(df) tan(u) has the density cos(u)^(df - 1).
    angle = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angle) ** (df - 1)
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(df) * math.tan(float(np.interp(0.95 * below[-1], below, angle)))


def margin(sides: Sequence[tuple[float, float]]) -> float:
    """Give half of the 95 % interval of a difference, from each side's standard error and degrees of freedom.

    The difference's degrees are those of Welch (1947), his second approximation: with Satterthwaite's, two batches on
    either side give 2 % instead of 5 % false alarms, with these 3.5 %. NaN where a side has no degree of freedom.

    >>> round(margin([(1.0, 1), (1.0, 1)]), 2)
    6.08
    """
    degrees, squared = [df for _, df in sides], sum(se**2 for se, _ in sides)
    if math.isnan(squared) or not min(degrees) >= 1:
        return NAN
    uncertain = sum(se**4 / (df + 2) for se, df in sides)
    df = min(max(squared**2 / uncertain - 2, min(degrees)), sum(degrees)) if uncertain else math.inf
    return math.sqrt(squared) * student_t(df)


@dataclass(frozen=True)
class Gap:
    """Training against validation at the same weights, both in eval mode.

    >>> gap = Gap(training=Evaluation(5000, accuracy=0.95), validation=Evaluation(5000, accuracy=0.90))
    >>> round(gap.accuracy, 4), round(gap.accuracy_se, 4), gap.beyond_noise
    (0.05, 0.0053, True)
    """

    training: Evaluation
    validation: Evaluation
    running_accuracy: float = NAN
    running_loss: float = NAN
    se_method: str = "binomial; per-example losses"
    notes: Mapping[str, str] = field(default_factory=dict)  # what else the numbers depend on

    @property
    def accuracy(self) -> float:
        """Training minus validation accuracy."""
        return self.training.accuracy - self.validation.accuracy

    @property
    def accuracy_se(self) -> float:
        """Standard error from both sides' own."""
        return math.hypot(self.training.accuracy_se, self.validation.accuracy_se)

    @property
    def accuracy_margin(self) -> float:
        """Half of the accuracy gap's 95 % interval."""
        return margin([(side.accuracy_se, side.accuracy_df) for side in (self.training, self.validation)])

    @property
    def loss(self) -> float:
        """Validation minus training loss."""
        return self.validation.loss - self.training.loss

    @property
    def loss_se(self) -> float:
        """Standard error from both sides' own."""
        return math.hypot(self.training.loss_se, self.validation.loss_se)

    @property
    def loss_margin(self) -> float:
        """Half of the loss gap's 95 % interval."""
        return margin([(side.loss_se, side.loss_df) for side in (self.training, self.validation)])

    @property
    def mode_effect(self) -> float:
        """Eval-mode training accuracy minus running accuracy: dropout, augmentation and averaging."""
        return self.training.accuracy - self.running_accuracy

    @property
    def beyond_noise(self) -> bool | None:
        """Whether 0 lies outside of the gap's 95 % interval (in accuracy; in loss without one); None if unknown."""
        for gap, margin in ((self.accuracy, self.accuracy_margin), (self.loss, self.loss_margin)):
            if not math.isnan(gap) and not math.isnan(margin):
                return abs(gap) > margin
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
            "accuracy_gap_margin": self.accuracy_margin,
            "loss_gap_margin": self.loss_margin,
        }

    def record(self) -> Record:
        """The ``gap`` record: ``[n of validation, one value per column]``."""
        values = self.columns()
        content = {"columns": list(values), **self._labels(), **self.notes}
        return "gap", "gap", [self.validation.examples, *values.values()], content

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None where unknown."""
        values = {name: None if math.isnan(value) else value for name, value in self.columns().items()}
        return {**values, **self._labels(), "beyond_noise": self.beyond_noise}

    def _labels(self) -> dict[str, Any]:
        sizes = {"n_train": self.training.examples, "n_val": self.validation.examples}
        known = {name: int(size) for name, size in sizes.items() if not math.isnan(size)}
        return {**known, "se_method": self.se_method}


def sentence(gap: Gap | None, obstacle: str = "") -> str:
    """Say how large the gap is, whether it is more than noise, and what training mode hid; or why it is unknown."""
    if gap is None:
        return f"The gap was not measured. {obstacle or 'In this process no validation that ends an epoch has run.'}"
    train, val = gap.training, gap.validation
    sizes = f"n = {_whole(train.examples)} each"
    if train.examples != val.examples:
        sizes = f"n = {_whole(train.examples)} and {_whole(val.examples)}"
    points = not math.isnan(gap.accuracy)
    if not points and math.isnan(gap.loss):
        return "The gap is unknown: validation and training examples had no accuracy and no loss to compare."
    if points:
        text = f"The gap is {_number(100 * gap.accuracy, 1)} ± {_number(100 * gap.accuracy_se, 1)} points"
        sides = f"training {100 * train.accuracy:.1f} %, validation {100 * val.accuracy:.1f} %"
    else:
        text = f"The gap in loss is {_number(gap.loss, 4)} ± {_number(gap.loss_se, 4)}"
        sides = f"training {_number(train.loss, 4)}, validation {_number(val.loss, 4)}"
    of_loss = math.isnan(gap.accuracy_margin)
    noise = f"{gap.loss_margin:.4f}" if of_loss else f"{100 * gap.accuracy_margin:.1f}"
    unknown = "; whether that is noise is unknown"
    before = (
        f"{unknown}, but the gap in loss, {_number(gap.loss, 4)} ± {gap.loss_se:.4f}, is" if points and of_loss else ":"
    )
    verdict = {
        True: f"{before} beyond noise (95 %: ± {noise})",
        False: f"{before} within noise (95 %: ± {noise})",
        None: unknown,
    }[gap.beyond_noise]
    mode = "the mode of validation" if "mode" in gap.notes else "eval mode"
    text += f" ({sides}, both in {mode}, {sizes}){verdict}."
    text += "".join(f" {note}" for note in gap.notes.values())
    effect = 100 * gap.mode_effect
    if math.isnan(effect):
        return text
    side = "below" if effect >= 0 else "above"
    return text + (
        f" Mode effect: the running accuracy ({100 * gap.running_accuracy:.1f} %) was {abs(effect):.1f} points {side} "
        "it, through averaging while the weights moved, and dropout or augmentation where there are any; that is not "
        "overfitting."
    )


def _number(value: float, digits: int) -> str:
    return "unknown" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"  # no -0.0


def _whole(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:,.0f}"
