"""The columns of the fit that tells choices apart: what each choice looks like as numbers."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from fmnist_pl.search.report.effects import ENOUGH, is_number

Curved = Literal["all", "logarithmic", "none"]  # which numbers may have an optimum inside their range
_WIDE = 4  # ratio of largest to smallest from which listed numbers are taken to be on a logarithmic scale


def blocks_of(trials: Sequence[FrozenTrial], *, curved: Curved) -> dict[str, np.ndarray]:
    """The columns of each choice that varied.

    Args:
        trials: To be fitted.
        curved: Each number in question takes a column more.
    """
    distributions: dict[str, BaseDistribution] = {}
    for trial in trials:
        distributions.update(trial.distributions)
    blocks = {name: _columns(trials, name, kind, curved=curved) for name, kind in distributions.items()}
    return {name: block for name, block in blocks.items() if block.shape[1] > 0}


def _columns(trials: Sequence[FrozenTrial], name: str, kind: BaseDistribution, *, curved: Curved) -> np.ndarray:
    """A category's columns tell its values apart; a number has itself and its square, on its own scale.

    A category that few trials have is no category of its own: a column for it would fit those trials whatever they did.

    A choice that was not made contributes nothing: what the condition itself does belongs to the choice that sets it.
    """
    made = np.asarray([name in trial.params for trial in trials])
    values = [trial.params[name] for trial in trials if name in trial.params]
    if not all(map(is_number, values)):
        texts = np.asarray([repr(trial.params.get(name)) for trial in trials])
        counts = Counter(texts[made].tolist())
        most_common = max(sorted(counts), key=counts.__getitem__)
        levels = [level for level in sorted(counts) if counts[level] >= ENOUGH and level != most_common]
        columns = [made & (texts == level) for level in levels]
    else:
        log = getattr(kind, "log", False)
        numbers = np.asarray(values, np.float64)
        listed = isinstance(kind, CategoricalDistribution) and numbers.min() > 0
        numbers = np.log(numbers) if log or (listed and np.ptp(np.log(numbers)) >= np.log(_WIDE)) else numbers
        spread = float(numbers.std())
        columns = []
        if spread > 0:
            scaled = np.zeros(len(trials))
            scaled[made] = (numbers - numbers.mean()) / spread
            bent = (curved == "all" or (curved == "logarithmic" and log)) and len(np.unique(numbers)) > 2
            columns = [scaled, scaled**2] if bent else [scaled]
    return np.asarray(columns, np.float64).reshape(len(columns), len(trials)).T


def least_squares(columns: np.ndarray, accuracies: np.ndarray) -> tuple[np.ndarray, float, int]:
    """Least squares: coefficients, sum of squares left over, rank."""
    coefficients, _, rank, _ = np.linalg.lstsq(columns, accuracies, rcond=None)
    rest = accuracies - columns @ coefficients
    return coefficients, float(rest @ rest), int(rank)
