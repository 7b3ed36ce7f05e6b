"""What each choice did: accuracy by category, or by thirds of a range, as seen and with the other choices held."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmnist_pl.compare.statistics import Spread, spread
from fmnist_pl.search.report.trial_records import TrialRecord, completed, in_state

FEW = 6  # different numbers that are listed one by one
ENOUGH = 3  # completed trials with a value, for its mean to be compared
NOT_MADE = "not used"


@dataclass(frozen=True)
class Effect:
    """The trials that share one value, or one third of the values, of a choice.

    Attributes:
        choice: Its name.
        value: As text.
        accuracy: Spread over the completed trials; None without any.
        best: Highest accuracy among them; None likewise.
        adjusted: Their mean accuracy if their other choices had been those of the average trial; None if not known, or
            if fewer than `ENOUGH` were completed.
        pruned: Trials that were given up early: a bad value may show here rather than in the mean.
        failed: Trials that failed.
    """

    choice: str
    value: str
    accuracy: Spread | None
    best: float | None
    adjusted: float | None
    pruned: int
    failed: int


def effects(
    records: Sequence[TrialRecord], choice: str, contributions: Mapping[int, float], mean: float = 0.0
) -> list[Effect]:
    """One row per value of ``choice``, or per third of its values; trials that did not make it come last.

    Args:
        records: Of all trials.
        choice: Its name.
        contributions: Of the choice to the accuracy of each completed trial; see `fmnist_pl.search.report.anova`.
            Empty if not known.
        mean: Of the accuracies to which the choices contribute.
    """
    finished = in_state(records, "complete", "pruned", "failed")
    made = [record for record in finished if choice in record.choices]
    absent = [record for record in finished if choice not in record.choices and record.choices]
    group = _grouping([record.choices[choice] for record in made])
    groups: dict[tuple[float, str], list[TrialRecord]] = {}
    for record in made:
        groups.setdefault(group(record.choices[choice]), []).append(record)
    if absent:
        groups[(float("inf"), NOT_MADE)] = absent
    return [_effect(choice, value, groups[place, value], contributions, mean) for place, value in sorted(groups)]


def largest_difference(rows: Sequence[Effect]) -> tuple[Effect, Effect] | None:
    """The values of a choice with the highest and the lowest adjusted accuracy, of those that enough trials have.

    Returns:
        None unless there are two.
    """
    known = [row for row in rows if row.adjusted is not None and row.value != NOT_MADE]
    if len(known) < 2:
        return None
    return max(known, key=_adjusted), min(known, key=_adjusted)


def shown(value: Any) -> str:  # noqa: ANN401
    """A chosen value as text: numbers short, words as they are."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def is_number(value: Any) -> bool:  # noqa: ANN401
    """Whether a chosen value lies on a scale; True and False do not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _grouping(values: Sequence[Any]) -> Callable[[Any], tuple[float, str]]:
    """What sorts a value into its group: the group's place and its name."""
    distinct = list(dict.fromkeys(values))
    if not all(map(is_number, distinct)):
        names = sorted(set(map(shown, distinct)))
        return lambda value: (float(names.index(shown(value))), shown(value))
    if len(distinct) <= FEW:
        return lambda value: (float(value), shown(value))
    low, high = np.quantile(values, [1 / 3, 2 / 3])

    def third(value: float) -> int:
        return int(value > low) + int(value > high)

    members: dict[int, list[float]] = {}
    for value in values:
        members.setdefault(third(value), []).append(value)
    names_of_thirds = {place: f"{shown(min(inside))} to {shown(max(inside))}" for place, inside in members.items()}
    return lambda value: (float(third(value)), names_of_thirds[third(value)])


def _effect(
    choice: str, value: str, members: Sequence[TrialRecord], contributions: Mapping[int, float], mean: float
) -> Effect:
    accuracies = [accuracy for _, accuracy in completed(members)]
    contributed = _mean([contributions[record.number] for record in members if record.number in contributions])
    return Effect(
        *(choice, value, spread(accuracies) if accuracies else None, max(accuracies, default=None)),
        None if contributed is None or len(accuracies) < ENOUGH else mean + contributed,
        *(len(in_state(members, "pruned")), len(in_state(members, "failed"))),
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _adjusted(row: Effect) -> float:
    return row.adjusted or 0.0
