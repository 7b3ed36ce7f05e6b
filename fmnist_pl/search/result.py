"""What a search found: its best trial, and that trial's configuration as an overlay."""

from collections.abc import Iterable
from pathlib import Path

import yaml
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from fmnist_pl.search.tally import is_lost
from training_health.durable_file import replace_durably
from training_health.errors import UserError

WINNER = "winner"  # the variant's name, and so that of its file


def best_trial(study: Study) -> FrozenTrial | None:
    """The completed trial with the highest validation accuracy, the earliest of equals; None without any."""
    return best_of(study.get_trials(deepcopy=False))


def best_of(trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
    """The best of ``trials``. Optuna's own ``best_trial`` may be any of equals, where it asks a database."""
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE and not is_lost(trial))
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def write_winner(study: Study, folder: Path) -> Path:
    """Write the best trial's configuration as ``folder/winner.yaml``, for ``make train VARIANT=folder/winner.yaml``.

    Args:
        study: With at least one completed trial.
        folder: Made if need be.

    Returns:
        The file's path.

    Raises:
        UserError: If no trial was completed, its overlay is missing, or the file cannot be written.
    """
    trial = best_trial(study)
    if trial is None:
        raise UserError(
            f"No trial of the study {study.study_name!r} was completed, so it has no winner. The report names what "
            "became of its trials; repeat the search with more trials or with a space that trains."
        )
    overlay = trial.user_attrs.get("overlay")
    if not isinstance(overlay, dict):
        raise UserError(
            f"Trial {trial.number} of the study {study.study_name!r} holds no configuration, so it was not made by "
            "`fmnist search`. Give the name of another study."
        )
    path = folder / f"{WINNER}.yaml"
    text = _head(study, trial) + yaml.safe_dump({**overlay, "variant": WINNER}, sort_keys=False, allow_unicode=True)
    try:
        replace_durably(path, text.encode())
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}. Make room or choose another folder, and repeat the "
            "command: finished trials are not repeated."
        ) from error
    return path


def _head(study: Study, trial: FrozenTrial) -> str:
    """Comments; a study may be called anything, a line break included."""
    name = "".join(letter if letter.isprintable() else " " for letter in study.study_name)
    finished = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
    made = f"# Trial {trial.number} of the search {name}: the best of {finished}, "
    return f"{made}validation accuracy {100 * (trial.value or 0.0):.2f} %.\n"
