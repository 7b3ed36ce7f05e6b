"""Ends trials that were lost, and has what they were to try tried again."""

import contextlib
from collections.abc import Sequence

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from fmnist_pl.search.tally import LOST, RETRY_HISTORY, RETRY_OF, Loss, retried, without_retry


def lose(study: Study, trial: FrozenTrial, reason: str, loss: Loss) -> None:
    """End a running trial without a result; nothing happens if another process has ended it.

    Args:
        study: Of the trial.
        trial: As it is now.
        reason: Why it is lost.
        loss: A killed trial waits to be tried again.
    """
    if _end(study, trial, reason, loss):
        add_missing_retries(study)


def _end(study: Study, trial: FrozenTrial, reason: str, loss: Loss) -> bool:
    """End a running trial without a result. False if another process has ended it."""
    try:
        for key, value in (("failure", reason), (LOST, loss)):
            study._storage.set_trial_user_attr(trial._trial_id, key, value)
        study.tell(trial.number, state=TrialState.FAIL)
    except (UpdateFinishedTrialError, ValueError):
        return False
    return True


def add_missing_retries(study: Study) -> None:
    """Queue every killed trial that nothing tries again yet, in the form of Optuna's own retries.

    Not together with the end of the trial, for no storage does both in one step: a process that is killed in between
    leaves it to the next one. Processes without a common lock may do it at the same moment; whoever queued the later
    retry sees the earlier one afterwards.
    """
    for trial in without_retry(study.get_trials(deepcopy=False)):
        history = [*trial.system_attrs.get(RETRY_HISTORY, []), trial.number]
        crashes = trial.user_attrs.get("crashes")
        study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={} if crashes is None else {"crashes": crashes},
                system_attrs={RETRY_OF: history[0], RETRY_HISTORY: history},
            )
        )
        void_repeated_retries(study, study.get_trials(deepcopy=False))


def void_repeated_retries(study: Study, trials: Sequence[FrozenTrial]) -> None:
    """End the waiting trials that retry what an earlier one retries; those that are begun, their processes end.

    Args:
        study: Of the trials.
        trials: All of the study, as they were a moment ago.
    """
    retrying: set[int] = set()
    for trial in sorted(trials, key=lambda one: one.number):
        lost = retried(trial)
        if lost is None:
            continue
        if lost in retrying and trial.state == TrialState.WAITING:
            with contextlib.suppress(UpdateFinishedTrialError):
                # Only one process can take a trial out of the queue.
                if study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    _end(study, trial, "another process queued it too", "void")
        retrying.add(lost)
