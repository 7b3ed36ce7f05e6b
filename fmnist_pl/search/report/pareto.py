"""The trials that no other beats in both accuracy and cost."""

from collections.abc import Callable, Sequence

from fmnist_pl.search.report.trial_records import TrialRecord, completed

Cost = Callable[[TrialRecord], float | None]


def pareto_front(records: Sequence[TrialRecord], cost: Cost) -> list[TrialRecord]:
    """Completed trials for which no other is as accurate at a lower cost, or more accurate at the same.

    Of trials with equal accuracy and cost the earliest stands for all.

    Args:
        records: Of all trials; those without the cost are left out.
        cost: Such as the number of parameters.

    Returns:
        By rising cost, and so by rising accuracy.
    """
    points = [
        (c, -accuracy, record.number, record)
        for record, accuracy in completed(records)
        if (c := cost(record)) is not None
    ]
    front: list[TrialRecord] = []
    best = float("-inf")
    for _, negated, _, record in sorted(points, key=lambda point: point[:3]):
        if -negated > best:
            best = -negated
            front.append(record)
    return front
