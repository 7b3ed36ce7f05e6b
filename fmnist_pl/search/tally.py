"""What counts as a trial: the arithmetic of a study that several processes work on and that may be killed.

A trial that was lost (its process was killed, or a race between machines made one too many) ends as Optuna's FAIL with
the user attribute ``lost``; it is no result, and no count includes it. What a killed trial was to try is tried again
as a new trial, which names the lost ones as Optuna's own retries do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial, TrialState

LOST = "lost"  # user attribute
Loss = Literal["killed", "void"]  # killed: to be tried again. void: there is nothing to try
RETRY_OF, RETRY_HISTORY = "failed_trial", "retry_history"  # system attributes, as Optuna's retries have them


@dataclass(frozen=True)
class Tally:
    """How many trials of a study are in which state; those that were lost are in none."""

    done: int
    pruned: int
    failed: int
    running: int
    waiting: int

    @property
    def finished(self) -> int:
        """Those with a result, be it that they cannot be trained."""
        return self.done + self.pruned + self.failed


def tally(trials: Sequence[FrozenTrial]) -> Tally:
    """Count them."""
    states = [trial.state for trial in trials if not is_lost(trial)]
    order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)
    return Tally(*(states.count(state) for state in order))


def is_lost(trial: FrozenTrial) -> bool:
    """Whether the trial has no result and never will."""
    return LOST in trial.user_attrs


def ordinal(number: int, trials: Sequence[FrozenTrial]) -> int:
    """How many suggestions came before the trial with this number: a retry suggests nothing, and a void one did not."""
    return sum(
        trial.number < number and RETRY_OF not in trial.system_attrs and trial.user_attrs.get(LOST) != "void"
        for trial in trials
    )


def is_one_too_many(number: int, target: int, trials: Sequence[FrozenTrial]) -> bool:
    """Whether a trial that has just begun is beyond the target, or retries what an earlier one retries too.

    Processes without a common lock may begin trials at the same moment. Every one of them sees the same numbers, so
    that all agree on which are one too many.
    """
    mine = next(trial for trial in trials if trial.number == number)
    earlier = [trial for trial in trials if trial.number < number]
    lost = retried(mine)
    if lost is not None and any(retried(trial) == lost for trial in earlier):
        return True
    return sum(not is_lost(trial) for trial in earlier) >= target


def retried(trial: FrozenTrial) -> int | None:
    """Number of the lost trial that this one tries again; None if it is no retry."""
    history = trial.system_attrs.get(RETRY_HISTORY)
    return history[-1] if history else None


def without_retry(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Killed trials that nothing tries again yet: the process that noticed was killed itself."""
    tried_again = {retried(trial) for trial in trials}
    return [
        trial
        for trial in trials
        if trial.state == TrialState.FAIL and trial.user_attrs.get(LOST) == "killed" and trial.number not in tried_again
    ]
