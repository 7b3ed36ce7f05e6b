"""A study's trials: how each ended, its accuracy, how it was sampled, and all of them as CSV."""

import csv
import io
import warnings
from collections.abc import Sequence

from optuna.exceptions import ExperimentalWarning
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

METRICS = ("parameters", "seconds", "dead_fraction", "validation_loss", "run", "failure")  # user attributes


def origin(trial: FrozenTrial) -> int:
    """The number of the trial that this one retries, or its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        retried = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if retried is None else retried


def repeated_as(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """For each trial that was killed or interrupted, the number of the last trial that repeats it.

    Optuna's retries name their original. A trial that the user interrupted gives no reason for its failure and is
    queued again with the same choices.
    """
    return {
        trial.number: later.number
        for trial in trials
        if trial.state == TrialState.FAIL
        for later in trials[trial.number + 1 :]
        if origin(later) == origin(trial)
        or (trial.params and "failure" not in trial.user_attrs and trial.params == later.params)
    }


def outcomes(trials: Sequence[FrozenTrial]) -> list[str]:
    """How each trial ended, in a word: lost if another repeats it, not trained if it violates a constraint."""
    words = {"COMPLETE": "completed", "FAIL": "failed"}
    result = [words.get(trial.state.name, trial.state.name.lower()) for trial in trials]
    for trial in trials:
        if trial.state == TrialState.PRUNED and not trial.intermediate_values:
            result[trial.number] = "not trained"
    for number in repeated_as(trials):
        result[number] = "lost"
    return result


def accuracy(trial: FrozenTrial) -> float:
    """Validation accuracy as a fraction, after the last epoch that the trial reported; NaN without any."""
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return trial.value
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else float("nan")


def by_sampling(trials: Sequence[FrozenTrial], named: int, random: int) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """The trained trials that were drawn at random, and those that were guided by ``random`` finished ones.

    The first ``named`` trials have choices that the user named, and are of neither kind.
    """
    given = [trial.params for trial in trials[:named]]
    finished = sorted((t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)), key=origin)
    groups = finished[:random], finished[random:]
    first, later = ([t for t in group if accuracy(t) == accuracy(t) and t.params not in given] for group in groups)
    return first, later


def csv_text(trials: Sequence[FrozenTrial]) -> str:
    """One row per trial: fractions and seconds, nothing rounded; empty where nothing is known."""
    choices = list(dict.fromkeys(name for trial in trials for name in trial.params))
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["trial", "state", "validation_accuracy", "epochs", *METRICS, "retries", *choices])
    for trial, outcome in zip(trials, outcomes(trials), strict=True):
        reported, retries = trial.intermediate_values, origin(trial)
        known = [trial.number, outcome, accuracy(trial) if reported or trial.values else None, len(reported)]
        metrics = [trial.user_attrs.get(name) for name in METRICS]
        made = [trial.params.get(name) for name in choices]
        writer.writerow([*known, *metrics, None if retries == trial.number else retries, *made])
    return output.getvalue()
