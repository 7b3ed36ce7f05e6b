"""Which choices mattered: Optuna's PED-ANOVA, held against what shuffled results would show."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

FEWEST = 10  # completed trials
RELIABLE = 50  # at which the best tenth holds as many trials as PED-ANOVA's authors ask for
_BEST = 5  # trials
_SHUFFLES = 100
_LEVEL = 0.05


@dataclass(frozen=True)
class Importance:
    """How much one choice had to do with reaching the best results.

    Attributes:
        name: Of the choice.
        share: Of the sum over all choices.
        chance: The share that it would exceed in one of twenty searches where no choice mattered.
    """

    name: str
    share: float
    chance: float


@dataclass(frozen=True)
class Importances:
    """All choices, or why nothing can be said.

    Attributes:
        choices: By falling share; empty if nothing can be said.
        best: How many trials count as the best.
        n: Completed trials.
        unknown: Why nothing can be said; None if something can.
    """

    choices: tuple[Importance, ...]
    best: int
    n: int
    unknown: str | None = None


def importances(study: Study) -> Importances:
    """The importance of each choice, from the completed trials.

    PED-ANOVA compares how a choice is distributed among the best trials with how it is among all; it takes in choices
    that were only made under a condition. Its figure is not an effect: the effects are in a table of their own. The
    results are shuffled over the trials a hundred times to see what it shows where no choice matters.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    names = _names(trials)
    if (unknown := _why_unknown(trials, names)) is not None:
        return Importances((), 0, len(trials), unknown)
    quantile = max(0.1, _BEST / len(trials))
    losses = -np.asarray([trial.value for trial in trials], np.float64)
    copy = _copy(trials)
    found = _evaluate(copy, names, losses, quantile)
    order = np.random.default_rng(0)
    chance = np.asarray([_evaluate(copy, names, order.permutation(losses), quantile) for _ in range(_SHUFFLES)])
    total = found.sum() or 1.0
    levels = np.quantile(chance, 1 - _LEVEL, axis=0) / total
    choices = [Importance(name, float(found[i] / total), float(levels[i])) for i, name in enumerate(names)]
    best = int(np.sum(losses <= np.sort(losses)[int(np.ceil(quantile * len(losses))) - 1]))
    return Importances(tuple(sorted(choices, key=lambda choice: -choice.share)), best, len(trials))


def _names(trials: Sequence[FrozenTrial]) -> list[str]:
    """Choices that had something to choose from."""
    distributions: dict[str, list[BaseDistribution]] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            distributions.setdefault(name, []).append(distribution)
    return [name for name, seen in distributions.items() if not all(distribution.single() for distribution in seen)]


def _why_unknown(trials: Sequence[FrozenTrial], names: Sequence[str]) -> str | None:
    if len(trials) < FEWEST:
        count = "1 completed trial is" if len(trials) == 1 else f"{len(trials)} completed trials are"
        return f"{count} too few to say which choices mattered: at least {FEWEST} are needed, better {RELIABLE}."
    if len({trial.value for trial in trials}) == 1:
        return "All completed trials reached the same accuracy, so nothing tells the choices apart."
    if not names:
        return "No choice had more than one possible value."
    return None


def _copy(trials: Sequence[FrozenTrial]) -> Study:
    """In memory, numbered from 0: the shuffled results are looked up by number."""
    logged = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        copy = optuna.create_study(direction="minimize")
        for trial in trials:
            copy.add_trial(
                optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=trial.value)
            )
    finally:
        optuna.logging.set_verbosity(logged)
    return copy


def _evaluate(study: Study, names: list[str], losses: np.ndarray, quantile: float) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lower is better (known), experimental, few trials (said in the report)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        values = get_param_importances(
            study, evaluator=evaluator, params=names, target=lambda trial: float(losses[trial.number]), normalize=False
        )
    return np.asarray([values[name] for name in names])
