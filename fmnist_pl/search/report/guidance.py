"""Was it trial and error? The best trial against the usual one, and guided trials against random ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from fmnist_pl.search.report.trial_records import TrialRecord, completed, in_state

_FEWEST = 5  # guided trials to compare with
_LEVEL = 0.05


@dataclass(frozen=True)
class Guidance:
    """How the search went.

    Attributes:
        n: Completed trials.
        best: Highest accuracy.
        median: Accuracy.
        tied: Trials other than the best within two standard errors of it.
        margin: Those two standard errors, as a fraction of the validation images.
        given: Accuracies of trials that the space names; pruned ones, as in the next two, by their last accuracy.
        random: Of the first trials that were drawn.
        guided: Of the later ones.
        first_guided: Number of the first of them; None without any.
        p_value: That guided trials are better by chance: two-sided, Mann and Whitney's; None with too few trials.
    """

    n: int
    best: float
    median: float
    tied: int
    margin: float
    given: tuple[float, ...]
    random: tuple[float, ...]
    guided: tuple[float, ...]
    first_guided: int | None
    p_value: float | None


def guidance(
    records: Sequence[TrialRecord],
    validation_images: int,
    random_trials: int,
    first: Sequence[Mapping[str, Any]] = (),
) -> Guidance | None:
    """Judge the search; None without a completed trial.

    Args:
        records: Of all trials.
        validation_images: That accuracy was measured on.
        random_trials: With so many finished the sampler begins to learn.
        first: Choices that were given, not drawn.
    """
    accuracies = [accuracy for _, accuracy in completed(records)]
    if not accuracies:
        return None
    best = max(accuracies)
    margin = 2 * float(np.sqrt(best * (1 - best) / validation_images))
    finished = [r for r in in_state(records, "complete", "pruned") if r.accuracy is not None]
    early, late = finished[:random_trials], finished[random_trials:]
    given = _accuracies([record for record in early if record.choices in first])
    random, guided = _accuracies([record for record in early if record.choices not in first]), _accuracies(late)
    p_value = None
    if len(random) >= _FEWEST and len(guided) >= _FEWEST:
        p_value = float(stats.mannwhitneyu(guided, random).pvalue)
    tied = sum(accuracy >= best - margin for accuracy in accuracies) - 1
    first_guided = late[0].number if late else None
    return Guidance(
        *(len(accuracies), best, float(np.median(accuracies)), tied, margin),
        *(given, random, guided, first_guided, p_value),
    )


def sentences(found: Guidance) -> list[str]:
    """What the judgement says, in words."""
    if found.n == 1:
        return [f"Only one trial was completed ({_percent(found.best)}): there is nothing to compare it with."]
    result = [
        f"The best trial reached {_percent(found.best)} on the validation images, the median trial "
        f"{_percent(found.median)}: {_points(found.best - found.median)} points more. It is the best of {found.n}, "
        "and so flattered by luck: what it is worth, further seeds tell.",
        _tied(found),
    ]
    if found.given:
        several = f"the best of the {len(found.given)} configurations" if len(found.given) > 1 else "the configuration"
        result.append(f"Under the same conditions {several} that the space names reached {_percent(max(found.given))}.")
    if found.p_value is None:
        result.append(
            "Whether the sampler's guidance helped cannot be told: too few trials came after those drawn at random."
        )
        return result
    random, guided = float(np.median(found.random)), float(np.median(found.guided))
    result.append(
        f"{len(found.random)} trials were drawn at random: median {_percent(random)}, best "
        f"{_percent(max(found.random))}. The {len(found.guided)} guided ones after them: median {_percent(guided)}, "
        f"best {_percent(max(found.guided))}; pruned ones count with their last accuracy. "
        f"{_verdict(found, guided - random)}"
    )
    return result


def _accuracies(records: Sequence[TrialRecord]) -> tuple[float, ...]:
    return tuple(record.accuracy for record in records if record.accuracy is not None)


def _tied(found: Guidance) -> str:
    others = "No other trial comes" if found.tied == 0 else f"{found.tied} other trial{'s' * (found.tied > 1)} come"
    others += "s" * (found.tied == 1)
    return (
        f"{others} within {_points(found.margin)} points of it, two standard errors of an accuracy on that many images"
        + ("." if found.tied == 0 else ": those it cannot be told from.")
    )


def _verdict(found: Guidance, difference: float) -> str:
    assert found.p_value is not None
    if found.p_value >= _LEVEL:
        return f"That is within chance (p = {found.p_value:.2f}): that the guidance helped is not shown."
    p = "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"
    if difference <= 0:
        return f"The guided ones were worse ({p}): trial and error would have done better."
    return f"Guided trials were better by {_points(difference)} points ({p}, Mann-Whitney): not just trial and error."


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _points(value: float) -> str:
    return f"{100 * value:.2f}"
