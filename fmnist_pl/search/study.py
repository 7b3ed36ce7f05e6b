"""Opens the study that a command asks for; says which of its trials count, and what is tried next.

A trial's user attributes: ``parameters`` (weights), ``seconds`` (of training), ``dead_fraction`` (dead ReLU units after
the last epoch; None where no unit can die), ``validation_loss``, ``run`` (folder) and ``failure`` (why it failed or was
never trained). A failed trial without ``failure`` was lost, since its process was stopped or killed; a further trial,
which Optuna marks as its retry, repeats it.
"""

import dataclasses
import difflib
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import PercentilePruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from training_health.errors import UserError

# Tried at random before the estimators are asked. With Optuna's ten they settled on the first good corner of sixteen
# choices and tried hardly anything else, which is neither a good search nor data that tell what matters.
RANDOM_TRIALS = 30
MOST_RETRIES = 5  # of one configuration's killed processes
# Pruned is a trial below three quarters of the completed ones at its epoch: not before ten are completed, nor after a
# first epoch, which says more about the learning rate's warm-up than about the network. The median would prune two
# thirds of a search, since it rises with the trials that complete, and leave too few of them to tell what mattered.
PRUNER = PercentilePruner(75.0, n_startup_trials=10, n_warmup_steps=1)

# What failed is said in words: Optuna would print every trial, and its SQL.
optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("optuna.storages._rdb").setLevel(logging.ERROR)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all trials of a study have in common: its user attributes."""

    data: str  # "fashion_mnist" or "synthetic"
    epochs: int
    seed: int
    images: int | None  # for training; None: all
    options: list[str]  # further ones of `fmnist fit`
    code: Mapping[str, Any]  # of the first command: git commit or version, and the libraries' versions
    space: Mapping[str, Any]  # content of its file


def open_study(storage: RDBStorage, name: str, settings: Settings) -> Study:
    """Open the study called ``name``, or create it.

    Raises:
        UserError: There is one that was made with another space or other settings.
    """
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize",
        sampler=SeededSampler(settings.seed),
        pruner=PRUNER,
        load_if_exists=True,
    )
    begun = bool(study.get_trials(deepcopy=False))  # asked first: another process may just have made the study
    wanted, found = dataclasses.asdict(settings), study.user_attrs
    if "space" not in found and not begun:
        for key, value in wanted.items():  # the space last: with it they are complete
            study.set_user_attr(key, value)
        return study
    old, new = (yaml.safe_dump({**attributes, "code": None}).splitlines() for attributes in (found, wanted))
    if old != new:
        lines = [line for line in difflib.ndiff(old, new) if line.startswith(("-", "+"))]
        head = f"The study {name!r} was made with other settings (-) than these (+), so trials could not be compared:"
        text = "\n".join([head, *lines, "Choose another --study, or repeat the command that made this one."])
        raise UserError(text, exit_code=2)
    return study


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial has a result, be it that it fails: not lost, and not beyond the space's limits."""
    if trial.state == TrialState.FAIL:
        return "failure" in trial.user_attrs
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and max(trial.constraints.values(), default=0) <= 0


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The completed trial with the highest validation accuracy, the earliest of equals; Optuna's may be any of them."""
    complete = (trial for trial in trials if trial.state == TrialState.COMPLETE)
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def origin(trial: FrozenTrial) -> int:
    """The number of the lost trial that this one repeats, or its own."""
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        repeated = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if repeated is None else repeated


def retry(study: Study, trial: FrozenTrial) -> None:
    """Queue what a lost trial was to try, unless it is queued already or was lost too often."""
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        history = RetryHeartbeatStaleTrialCallback.retry_history
        if not any(trial.number in history(other) for other in study.get_trials(deepcopy=False)):
            RetryHeartbeatStaleTrialCallback(MOST_RETRIES)(study, trial)


class SeededSampler(TPESampler):
    """Random for the first trials that count, then a tree-structured Parzen estimator (Bergstra et al. 2011).

    Each trial has an rng of its own, made of the seed and of how many trials came before, retries left out: no two
    processes try the same, nor does a search that is resumed repeat what it tried before.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.seed = seed

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Begin again with the rng of this trial."""
        trials = study.get_trials(deepcopy=False)
        ordinal = sum(origin(one) == one.number < trial.number for one in trials)
        entropy = [self.seed, ordinal, 0 if origin(trial) == trial.number else trial.number]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        guided = sum(map(counts, trials)) >= RANDOM_TRIALS  # Optuna's own count has those beyond the limits too
        super().__init__(seed=seed, multivariate=True, n_startup_trials=0 if guided else len(trials) + 1)
        super().before_trial(study, trial)
