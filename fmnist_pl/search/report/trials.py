"""A study's trials: how each ended, its accuracy, how it was sampled, and all of them as CSV."""

import csv
import io
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from fmnist_pl.search.study import origin

METRICS = ("parameters", "seconds", "dead_fraction", "validation_loss", "run", "failure")  # user attributes


def outcome(trial: FrozenTrial) -> str:
    """How it ended. A lost trial was killed or interrupted, one that is not trained is beyond the space's limits."""
    if trial.state == TrialState.FAIL:
        return "failed" if "failure" in trial.user_attrs else "lost"
    if trial.state == TrialState.PRUNED and not trial.intermediate_values:
        return "not trained"
    return "completed" if trial.state == TrialState.COMPLETE else trial.state.name.lower()


def accuracy(trial: FrozenTrial) -> float:
    """Validation accuracy as a fraction, after the last epoch that the trial reported; NaN without any."""
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return trial.value
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else float("nan")


def by_sampling(trials: Sequence[FrozenTrial], named: int, random: int) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """The completed and pruned trials that were drawn at random, and those after ``random`` ones with a result.

    The first ``named`` trials have choices that the user named, and are of neither kind.
    """
    given = [trial.params for trial in trials[:named]]
    results = sorted((t for t in trials if outcome(t) in ("completed", "pruned", "failed")), key=origin)
    groups = results[:random], results[random:]
    first, later = ([t for t in group if outcome(t) != "failed" and t.params not in given] for group in groups)
    return first, later


def csv_text(trials: Sequence[FrozenTrial]) -> str:
    """One row per trial: fractions and seconds, nothing rounded; empty where nothing is known."""
    choices = list(dict.fromkeys(name for trial in trials for name in trial.params))
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["trial", "state", "validation_accuracy", "epochs", "repeats", *METRICS, *choices])
    for trial in trials:
        known = accuracy(trial) if outcome(trial) in ("completed", "pruned") else None
        repeats = None if origin(trial) == trial.number else origin(trial)
        row = [trial.number, outcome(trial), known, len(trial.intermediate_values), repeats]
        row += [trial.user_attrs.get(name) for name in METRICS] + [trial.params.get(name) for name in choices]
        writer.writerow(row)
    return output.getvalue()
