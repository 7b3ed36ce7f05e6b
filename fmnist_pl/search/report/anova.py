"""Which choices mattered, each with all others held: analysis of variance over the trials.

A sampler that learns drifts: late trials are better *and* share choices that do nothing. A mean per category, or an
importance from one choice at a time, credits those choices with what others did. Here the accuracy is fitted by the
sum of what each choice contributes, and a choice counts by what is lost when it is left out (F test).

A trial that learned nothing lies so far below the others that it alone would decide the fit, so accuracies below
Tukey's lower fence, Q1 - 1.5 (Q3 - Q1), are taken to lie on it (Tukey 1977, Exploratory Data Analysis).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from fmnist_pl.search.report.design import Curved, blocks_of, least_squares
from fmnist_pl.search.report.effects import ENOUGH, FEW, is_number

LEVEL = 0.05
_CURVED: tuple[Curved, ...] = ("all", "logarithmic", "none")
_SPARE = 8  # trials more than there are coefficients, for an estimate of chance that is worth the name


@dataclass(frozen=True)
class Choice:
    """What one choice contributed.

    Attributes:
        name: Of the choice.
        share: Of the variation between trials that is lost when the choice is left out of the fit.
        p_value: How often a choice that does nothing would seem to do as much; adjusted for how many there are.
        contributions: To the accuracy of each trial, by its number; they average zero.
        comparable: Whether enough trials differ in it: one trial with another value is no evidence, whatever its p.
    """

    name: str
    share: float
    p_value: float
    contributions: Mapping[int, float]
    comparable: bool

    @property
    def matters(self) -> bool:
        """Whether it is beyond chance: of all choices that are called so about 5 % are called so wrongly."""
        return self.comparable and self.p_value < LEVEL


@dataclass(frozen=True)
class Anova:
    """All choices, or why nothing can be said.

    Attributes:
        choices: By rising p value.
        n: Trials.
        epoch: After which their accuracy is looked at, from 1; None for the last.
        mean: Of the accuracies, as they were fitted.
        explained: Share of the variation that all choices explain together.
        curved: Which numbers may have an optimum inside their range; the others have a trend only.
        settled: Names of choices in which these trials do not differ at all.
        fence: What lower accuracies were taken for; None if there were none.
        below: How many were.
        unknown: Why nothing can be said; None if something can.
    """

    choices: tuple[Choice, ...]
    n: int
    epoch: int | None = None
    mean: float = 0.0
    explained: float = 0.0
    curved: Curved = "all"
    settled: tuple[str, ...] = ()
    fence: float | None = None
    below: int = 0
    unknown: str | None = None


def analyse(study: Study) -> Anova:
    """Tell the choices apart by what each contributes to the accuracy of the completed trials."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return _analyse(trials, np.asarray([trial.value for trial in trials], np.float64), None)


def analyse_early(study: Study) -> Anova | None:
    """The same after the last epoch that pruned trials have trained too, so that their choices are not left out.

    Returns:
        None if no trial was pruned, or trials have no epoch in common.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    trials = [trial for trial in trials if trial.params]
    if all(trial.state == TrialState.COMPLETE for trial in trials):
        return None
    common = set.intersection(*(set(trial.intermediate_values) for trial in trials))
    if not common:
        return None
    epoch = max(common)
    return _analyse(trials, np.asarray([trial.intermediate_values[epoch] for trial in trials], np.float64), epoch + 1)


def _analyse(trials: Sequence[FrozenTrial], accuracies: np.ndarray, epoch: int | None) -> Anova:
    n = len(trials)
    finite = np.isfinite(accuracies)
    if not finite.all():
        trials, accuracies = (
            [trial for trial, is_finite in zip(trials, finite, strict=True) if is_finite],
            accuracies[finite],
        )
        n = len(trials)
    if n < 2 or np.ptp(accuracies) == 0:
        return Anova((), n, epoch, unknown=_why_unknown(n))
    fence = _lower_fence(accuracies)
    below = int(np.sum(accuracies < fence))
    accuracies = np.maximum(accuracies, fence)
    for curved in _CURVED:
        blocks = blocks_of(trials, curved=curved)
        if not blocks:
            return Anova((), n, epoch, unknown="No choice had more than one value among the completed trials.")
        everything = np.hstack([np.ones((n, 1)), *blocks.values()])
        coefficients, left_over, rank = least_squares(everything, accuracies)
        if n - rank >= (_SPARE if curved == "none" else max(_SPARE, rank // 2)):
            choices, explained = _choices(trials, accuracies, blocks, coefficients, left_over, rank)
            settled = {name for trial in trials for name in trial.params if name not in blocks}
            return Anova(
                *(choices, n, epoch, float(accuracies.mean()), explained, curved, tuple(sorted(settled))),
                *(fence if below else None, below),
            )
    needed = rank + _SPARE
    return Anova(
        (),
        n,
        epoch,
        unknown=f"{n} completed trials are too few to tell {len(blocks)} choices apart: {needed} are needed.",
    )


def _lower_fence(accuracies: np.ndarray) -> float:
    """Minus infinity where the middle half of the trials are equal: everything else would lie beyond."""
    low, high = np.quantile(accuracies, [0.25, 0.75])
    return float(low - 1.5 * (high - low)) if high > low else -np.inf


def _why_unknown(n: int) -> str:
    if n < 2:
        return f"{'No trial was' if n == 0 else 'Only one trial was'} completed, so nothing tells the choices apart."
    return "All completed trials reached the same accuracy, so nothing tells the choices apart."


def _choices(
    trials: Sequence[FrozenTrial],
    accuracies: np.ndarray,
    blocks: Mapping[str, np.ndarray],
    coefficients: np.ndarray,
    left_over: float,
    rank: int,
) -> tuple[tuple[Choice, ...], float]:
    """Every choice, and the share of the variation that all explain together."""
    n, total = len(trials), float(np.sum((accuracies - accuracies.mean()) ** 2))
    p_values, shares, contributions = [], [], []
    start = 1
    for name, block in blocks.items():
        others = [other for key, other in blocks.items() if key != name]
        _, without, rank_without = least_squares(np.hstack([np.ones((n, 1)), *others]), accuracies)
        p_values.append(_f_test(without - left_over, rank - rank_without, left_over, n - rank))
        shares.append(max(0.0, without - left_over) / total)
        part = block @ coefficients[start : start + block.shape[1]]
        contributions.append(part - part.mean())
        start += block.shape[1]
    adjusted = stats.false_discovery_control(p_values)  # Benjamini and Hochberg
    choices = [
        Choice(
            *(name, share, float(p), {trial.number: float(x) for trial, x in zip(trials, part, strict=True)}),
            _is_comparable([trial.params[name] for trial in trials if name in trial.params]),
        )
        for name, share, p, part in zip(blocks, shares, adjusted, contributions, strict=True)
    ]
    choices.sort(key=lambda choice: (choice.p_value, -choice.share))
    return tuple(choices), 1 - left_over / total


def _is_comparable(values: Sequence[Any]) -> bool:
    """Whether two values, or many numbers, have enough trials."""
    counts = sorted(Counter(map(repr, values)).values(), reverse=True)
    many = len(counts) > FEW and all(map(is_number, values))
    return many or (len(counts) > 1 and counts[1] >= ENOUGH)


def _f_test(lost: float, coefficients: int, left_over: float, spare: int) -> float:
    """The p value; 1 for a choice that is no more than a combination of others."""
    if coefficients <= 0 or lost <= 0:
        return 1.0
    if left_over <= 0:
        return 0.0
    return float(stats.f.sf(lost / coefficients / (left_over / spare), coefficients, spare))
