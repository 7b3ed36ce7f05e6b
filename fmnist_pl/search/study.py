"""Opens the study that a command asks for, and refuses one that holds something else."""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.pruners import PercentilePruner
from optuna.study import Study, StudyDirection

from fmnist_pl.search.storage import StudyStorage
from training_health.errors import UserError

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from fmnist_pl.search.space import Space

# Hopeless is a trial below three quarters of the completed ones at its epoch: not before ten are completed, nor after
# a first epoch, which says more about the learning rate's warm-up than about the network. The median would prune two
# thirds of a search, since it rises with the trials that complete, and leave too few of them to tell what mattered.
PRUNER_STARTUP_TRIALS, PRUNER_WARMUP_EPOCHS, PRUNER_KEEPS = 10, 1, 75.0
_WORDS = {
    "data": "data set",
    "epochs": "number of epochs",
    "seed": "seed",
    "subset": "number of training images",
    "options": "choice of fit's options",
}


@dataclass(frozen=True)
class Settings:
    """What all trials of a study have in common.

    Attributes:
        space: What varies.
        data: "fashion_mnist" or "synthetic".
        epochs: Of every trial.
        seed: Of the suggestions and of every trial.
        subset: Training images of every trial; None for all.
        options: Further options of ``fmnist fit``.
        code: Hash of the source code and the libraries' versions. A study may outlive a version.
    """

    space: "Space"
    data: str
    epochs: int
    seed: int
    subset: int | None
    options: tuple[str, ...]
    code: str

    def attributes(self) -> dict[str, Any]:
        """As the study keeps them."""
        return {
            **{name: getattr(self, name) for name in ("data", "epochs", "seed", "subset", "code")},
            "options": list(self.options),
            "space": self.space.content,
            "space_hash": self.space.digest,  # the last: a study that has it has all
        }


def open_study(storage: StudyStorage, name: str, settings: Settings) -> Study:
    """Open the study called ``name``, or create it.

    Raises:
        UserError: There is one that was made with another space or other settings, or the storage fails.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna.storages._rdb").setLevel(logging.ERROR)  # its SQL; what failed is said in words
    with storage.explained(), storage.one_at_a_time():
        study = optuna.create_study(
            storage=storage.backend,
            study_name=name,
            direction=StudyDirection.MAXIMIZE,
            pruner=PercentilePruner(PRUNER_KEEPS, PRUNER_STARTUP_TRIALS, PRUNER_WARMUP_EPOCHS),
            load_if_exists=True,
        )
        wanted, found = settings.attributes(), study.user_attrs
        if "space_hash" not in found and not study.get_trials(deepcopy=False):
            for key, value in wanted.items():
                study.set_user_attr(key, value)
            return study
    _refuse_others(name, wanted, found)
    return study


def _refuse_others(name: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    other = f"Choose another name with --study, or repeat the command that made {name!r}."
    if "space_hash" not in found:
        raise UserError(f"The study {name!r} was not made by `fmnist search`. {other}", exit_code=2)
    for key, words in _WORDS.items():
        if found[key] != wanted[key]:
            raise UserError(
                f"The study {name!r} exists with another {words}: {_shown(found[key])}, not {_shown(wanted[key])}. Its "
                f"trials and the new ones could not be compared. {other}",
                exit_code=2,
            )
    if found["space_hash"] != wanted["space_hash"]:
        raise UserError(
            f"The study {name!r} exists with another space: {_differences(found['space'], wanted['space'])}. {other}",
            exit_code=2,
        )


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Which names differ, for a message."""
    differing = []
    for section in dict.fromkeys([*found, *wanted]):
        old, new = found.get(section), wanted.get(section)
        if isinstance(old, dict) and isinstance(new, dict):
            differing += [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
        elif old != new:
            differing.append(section)
    return f"{', '.join(differing)} differ{'s' * (len(differing) == 1)}"


def _shown(value: Any) -> str:  # noqa: ANN401
    if value is None:
        return "all"
    return (" ".join(value) or "none") if isinstance(value, list) else str(value)
