"""How long the rest will take, from the seconds per epoch seen so far."""

import statistics
from collections.abc import Iterable

from fmnist_pl.compare.wanted_run import WantedRun


class Forecast:
    """Learns each variant's seconds per epoch; for a variant not seen yet the others' median stands in."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    def learn(self, variant: str, seconds: float) -> None:
        """Take in one epoch's (or a finished run's median) seconds."""
        self._seconds.setdefault(variant, []).append(seconds)

    def seconds_left(self, waiting: Iterable[tuple[WantedRun, int]], jobs: int) -> float | None:
        """Seconds until all is trained.

        Args:
            waiting: Runs that are not finished, each with the epochs it has done.
            jobs: How many train at a time.

        Returns:
            None while nothing has been seen.
        """
        if not self._seconds:
            return None
        medians = {variant: statistics.median(seconds) for variant, seconds in self._seconds.items()}
        usual = statistics.median(medians.values())
        per_run = [(run.epochs - done) * medians.get(run.name, usual) for run, done in waiting]
        return max(sum(per_run) / jobs, max(per_run, default=0.0))


def duration(seconds: float) -> str:
    """In words a person would use."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
