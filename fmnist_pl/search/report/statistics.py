"""What the trials show: which choices mattered, whether guidance helped, whether dead units cost accuracy."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.05
ENOUGH = 3  # trials with a value, for the value to be compared
SPARE = 8  # trials more than coefficients, for an estimate of chance that deserves the name
FEWEST_GUIDED, FEWEST_DEAD = 5, 8  # trials; with fewer even a strong relation would be within chance
Array = NDArray[np.float64]
Estimate = tuple[float, float, float]  # with the ends of its 95 % interval


@dataclass(frozen=True)
class Effect:
    """What one choice did to the accuracy with the other choices held; empty where that is unknown."""

    choice: str
    verdict: Literal["matters", "noise", "unknown"] = "unknown"
    p_value: float = 1.0  # of the F test, adjusted for the number of choices (Benjamini and Hochberg)
    best: str = ""  # the value with the highest estimate
    worst: str = ""
    n: tuple[int, int] = (0, 0)  # trials with the best and with the worst value
    difference: float = 0.0  # between the two, as a fraction
    half_width: float = 0.0  # of its 95 % interval, simultaneous over all pairs (Scheffé), since this pair was picked


@dataclass(frozen=True)
class Analysis:
    """All choices, those that matter first, each group by falling difference; or why nothing can be said."""

    n: int  # trials
    unknown: str = ""
    effects: tuple[Effect, ...] = ()
    explained: float = 0.0  # fraction of the variation that all choices explain together
    ranges: int = 0  # numbers with more different values were compared by so many ranges
    fence: float = 0.0  # the accuracy that lower ones were raised to
    below: int = 0  # how many were


def shown(value: Any) -> str:  # noqa: ANN401
    """A chosen value as text; numbers are short."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def lower_fence(values: Sequence[float]) -> float:
    """Tukey's: Q1 - 1.5 (Q3 - Q1); the lowest value where the middle half of the values are equal."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float(low - 1.5 * (high - low)) if high > low else min(values)


def analyse(choices: Sequence[Mapping[str, Any]], accuracies: Sequence[float]) -> Analysis:
    """Fit the accuracy by a sum of what each choice contributes, and test what is lost without each of them.

    Least squares with one column for each value of a choice but its most common. Accuracies below `lower_fence` are
    raised to it: one trial that learned nothing would decide the fit alone.

    Args:
        choices: By name, of each trial.
        accuracies: The same trials' accuracies, as fractions.
    """
    n = len(accuracies)
    if n < 2 or min(accuracies) == max(accuracies):
        return Analysis(n, "at least two trials with different accuracies are needed")
    fence = lower_fence(accuracies)
    y = np.maximum(accuracies, fence)
    names = list(dict.fromkeys(name for made in choices for name in made))
    for ranges in (6, 3, 2):  # the finest comparison that the number of trials allows
        values = {name: _values([made.get(name) for made in choices], ranges) for name in names}
        columns = [(name, value) for name in names for value, _ in Counter(values[name]).most_common()[1:]]
        x = np.array([np.ones(n), *([own == value for own in values[name]] for name, value in columns)], float).T
        rank = int(np.linalg.matrix_rank(x))
        if n - rank >= (SPARE if ranges == 2 else max(SPARE, rank // 2)):
            break
    else:
        return Analysis(n, f"{n} trials are too few for {len(names)} choices, about {x.shape[1] + SPARE} are needed")
    inverse = np.linalg.pinv(x)
    coefficients = inverse @ y
    rest = float(np.sum((y - x @ coefficients) ** 2))
    covariance = max(rest / (n - rank), np.finfo(float).eps) * inverse @ inverse.T
    # A coefficient that no other column can stand in for has a row of the identity here.
    estimable = np.abs(inverse @ x - np.eye(x.shape[1])).max(axis=1) < 1e-8
    effects = []
    for name in names:
        counts = {value: count for value, count in Counter(values[name]).most_common() if count >= ENOUGH}
        at = [1 + columns.index((name, value)) for value in list(counts)[1:]]
        known = len(at) > 0 and estimable[at].all()
        effect = _effect(name, counts, coefficients[at], covariance[np.ix_(at, at)], n - rank) if known else None
        effects.append(effect or Effect(name))
    explained = 1 - rest / float(np.sum((y - y.mean()) ** 2))
    tested = [effect for effect in effects if effect.verdict != "unknown"]
    adjusted = stats.false_discovery_control([effect.p_value for effect in tested]) if tested else []
    judged = [
        replace(effect, p_value=float(p), verdict="matters" if p < LEVEL else "noise")
        for effect, p in zip(tested, adjusted, strict=True)
    ]
    judged.sort(key=lambda effect: (effect.verdict != "matters", -effect.difference))
    judged += [effect for effect in effects if effect.verdict == "unknown"]
    return Analysis(n, "", tuple(judged), explained, ranges, fence, int(np.sum(accuracies < y)))


def _values(made: Sequence[Any], ranges: int) -> list[str]:
    """Each trial's value as text; of numbers with many different values, one of so many ranges, equally full."""
    numbers = [value for value in made if isinstance(value, int | float) and not isinstance(value, bool)]
    names: dict[float, str] = {}
    if len(set(numbers)) > ranges:
        ranks = np.searchsorted(np.quantile(numbers, np.arange(1, ranges) / ranges), numbers)
        for rank in set(ranks):
            inside = [value for value, own in zip(numbers, ranks, strict=True) if own == rank]
            names |= dict.fromkeys(inside, f"{shown(min(inside))} to {shown(max(inside))}")
    return [names.get(value) or shown(value) for value in made]


def _effect(name: str, counts: Mapping[str, int], coefficients: Array, covariance: Array, spare: int) -> Effect:
    """Best against worst value, and the F test of all values; the first has the coefficient 0."""
    size, estimates = len(coefficients), dict(zip(counts, [0.0, *coefficients], strict=True))
    best, worst = (pick(estimates, key=estimates.__getitem__) for pick in (max, min))
    contrast = np.array([(value == best) - float(value == worst) for value in counts][1:])
    p_value = stats.f.sf(coefficients @ np.linalg.solve(covariance, coefficients) / size, size, spare)
    half_width = np.sqrt(size * stats.f.isf(LEVEL, size, spare) * (contrast @ covariance @ contrast))
    difference, n = float(estimates[best] - estimates[worst]), (counts[best], counts[worst])
    return Effect(name, "noise", float(p_value), best, worst, n, difference, float(half_width))


def not_told_apart(accuracies: Sequence[float], images: int) -> int:
    """How many are within chance of the best one: pooled two-sided tests of two proportions of ``images``."""
    best, others = max(accuracies, default=0.0), np.sort(accuracies)[:-1]
    pooled = (best + others) / 2
    error = np.sqrt(2 * pooled * (1 - pooled) / images)
    return int(np.sum(best - others <= stats.norm.isf(LEVEL / 2) * error))


def guidance(random: Sequence[float], guided: Sequence[float]) -> tuple[float, float] | None:
    """Mann and Whitney's two-sided p value, and the fraction of all pairs in which the guided trial is better."""
    if min(len(random), len(guided)) < FEWEST_GUIDED:
        return None
    result = stats.mannwhitneyu(guided, random)
    return float(result.pvalue), float(result.statistic) / (len(random) * len(guided))


def dead_units(dead: Sequence[float], accuracies: Sequence[float]) -> tuple[float, Estimate, Estimate] | None:
    """Two-sided p value and Spearman's rank correlation of dead fractions and accuracies, Theil and Sen's slope."""
    if len(dead) < FEWEST_DEAD or min(dead) == max(dead) or min(accuracies) == max(accuracies):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # ranks in perfect order have an interval of no width
        rho = stats.pearsonr(stats.rankdata(dead), stats.rankdata(accuracies))
        low, high = rho.confidence_interval(1 - LEVEL)
    line = stats.theilslopes(accuracies, dead, alpha=1 - LEVEL)
    slope = (float(line.slope), float(line.low_slope), float(line.high_slope))
    return float(rho.pvalue), (float(rho.statistic), float(low), float(high)), slope
