"""A study's trials as plain records, and as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from fmnist_pl.search.tally import RETRY_HISTORY, is_lost

State = Literal["complete", "pruned", "failed", "lost", "running", "waiting"]
_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        number: Optuna's, from 0.
        state: How it ended; lost is a trial whose process was killed, which is no result of any kind.
        accuracy: On the validation images, after its last epoch; of a pruned trial, after the last that it trained.
        epochs: That it reported.
        choices: What was chosen; of a conditional choice only where its condition held.
        parameters: Weights in the network; None where not recorded, as with the other figures.
        seconds: Of the whole training.
        dead_share: Dead units / units after the last epoch; None too where no unit can die.
        validation_loss: After the last epoch.
        run: Its folder.
        failure: Why it failed, or was not trained.
        retries: Numbers of the lost trials that it repeats.
    """

    number: int
    state: State
    accuracy: float | None
    epochs: int
    choices: Mapping[str, Any]
    parameters: int | None = None
    seconds: float | None = None
    dead_share: float | None = None
    validation_loss: float | None = None
    run: str | None = None
    failure: str | None = None
    retries: tuple[int, ...] = ()


FIGURES = ("parameters", "seconds", "dead_share", "validation_loss", "run", "failure")


def trial_records(study: Study) -> list[TrialRecord]:
    """All trials of a study, by number."""
    trials = sorted(study.get_trials(deepcopy=False), key=lambda trial: trial.number)
    repeated = {number for trial in trials for number in _retries(trial)}
    return [_record(trial, lost=is_lost(trial) or trial.number in repeated) for trial in trials]


def in_state(records: Sequence[TrialRecord], *states: State) -> list[TrialRecord]:
    """Those that are in one of ``states``."""
    return [record for record in records if record.state in states]


def completed(records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, float]]:
    """Those that trained to the end, each with its accuracy."""
    return [(r, r.accuracy) for r in records if r.state == "complete" and r.accuracy is not None]


def choice_names(records: Sequence[TrialRecord]) -> list[str]:
    """The names of all choices, in the order in which trials made them."""
    return list(dict.fromkeys(name for record in records for name in record.choices))


def csv_text(records: Sequence[TrialRecord]) -> str:
    """One row per trial: fractions and seconds, nothing rounded; a choice's column is empty where it was not made."""
    choices = choice_names(records)
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["trial", "state", "validation_accuracy", "epochs", *FIGURES, "retries", *choices])
    for record in records:
        writer.writerow(
            [
                *(record.number, record.state, record.accuracy, record.epochs),
                *(getattr(record, figure) for figure in FIGURES),
                " ".join(map(str, record.retries)),
                *(record.choices.get(name) for name in choices),
            ]
        )
    return output.getvalue()


def _retries(trial: FrozenTrial) -> tuple[int, ...]:
    return tuple(trial.system_attrs.get(RETRY_HISTORY, ()))


def _record(trial: FrozenTrial, *, lost: bool) -> TrialRecord:
    reported = trial.intermediate_values
    accuracy = trial.value if trial.values else None
    if accuracy is None and reported:
        accuracy = reported[max(reported)]
    attributes = {name: trial.user_attrs.get(name) for name in FIGURES}
    state = "lost" if lost and trial.state == TrialState.FAIL else _STATES[trial.state]
    return TrialRecord(
        trial.number, state, accuracy, len(reported), trial.params, **attributes, retries=_retries(trial)
    )
