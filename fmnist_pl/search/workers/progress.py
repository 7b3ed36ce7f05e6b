"""What a search says while it runs: how each trial ended, how far it is, how long the rest will take."""

import statistics
from collections.abc import Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState

from fmnist_pl.compare.forecast import duration
from fmnist_pl.search.result import best_of
from fmnist_pl.search.tally import tally


def standing(trials: Sequence[FrozenTrial], target: int, jobs: int) -> str:
    """Trials done, pruned and failed, the best so far, and the time that the rest will take.

    Args:
        trials: Of the study.
        target: How many are to finish.
        jobs: How many train at a time here.
    """
    counts = tally(trials)
    by_state = f"{counts.done} done, {counts.pruned} pruned, {counts.failed} failed"
    parts = [f"{counts.finished} of {max(target, counts.finished)} trials: {by_state}"]
    if best := best_of(trials):
        parts.append(f"best {percent(best.value)} (trial {best.number})")
    seconds = seconds_left(trials, target, jobs)
    if seconds is not None:
        parts.append(f"about {duration(seconds)} left")
    return "; ".join(parts)


def running(epochs: Mapping[int, int], each: int) -> str:
    """How far the trials are that run here: by number the epochs that are done, of ``each``."""
    texts = [f"trial {number} epoch {done}/{each}" for number, done in sorted(epochs.items())]
    return ", ".join(texts) or "waiting for the trials of other searches"


def seconds_left(trials: Sequence[FrozenTrial], target: int, jobs: int) -> float | None:
    """Seconds until ``target`` trials are finished, as fast as so far; None while nothing is known or left."""
    counts = tally(trials)
    left = target - counts.finished
    times = [
        (trial.datetime_complete - trial.datetime_start).total_seconds()
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        and trial.datetime_start is not None
        and trial.datetime_complete is not None
    ]
    if left <= 0 or not times:
        return None
    return left * statistics.mean(times) / min(left, max(jobs, counts.running))


def percent(value: float | None) -> str:
    """A share as a person reads it."""
    return "unknown" if value is None else f"{100 * value:.2f} %"
