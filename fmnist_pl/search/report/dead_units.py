"""Do dead units cost accuracy? Over the trials, by rank."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
FEWEST = 8  # trials; below, even a strong relation would lie within chance
METHOD = "Spearman's rank correlation; p value and Fisher's 95 % interval from scipy.stats.pearsonr of the ranks"


@dataclass(frozen=True)
class Relation:
    """How two figures go together over trials.

    Attributes:
        n: Trials.
        rho: Rank correlation, from -1 to 1.
        low: Of its 95 % interval.
        high: Likewise.
        p_value: Two-sided: how often unrelated figures would show so much.
        slope: Points of accuracy per ten points of dead share, Theil and Sen's: the median over all pairs of trials.
        slope_low: Of its 95 % interval.
        slope_high: Likewise.
    """

    n: int
    rho: float
    low: float
    high: float
    p_value: float
    slope: float
    slope_low: float
    slope_high: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves zero out and the p value agrees."""
        return self.p_value < 1 - LEVEL and (self.low > 0 or self.high < 0)


def relation(dead_shares: Sequence[float], accuracies: Sequence[float]) -> Relation | None:
    """Relate dead share and accuracy.

    Args:
        dead_shares: Of the trials, as fractions.
        accuracies: Of the same trials, as fractions.

    Returns:
        None where there is nothing to relate: fewer than `FEWEST` trials, or all with the same figure.
    """
    if len(dead_shares) < FEWEST or np.ptp(dead_shares) == 0 or np.ptp(accuracies) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # ranks in perfect order have an interval of no width
        result = stats.pearsonr(stats.rankdata(dead_shares), stats.rankdata(accuracies))
        interval = result.confidence_interval(LEVEL)
        line = stats.theilslopes(accuracies, dead_shares, alpha=LEVEL)
    slope, low, high = (10 * float(value) for value in (line.slope, line.low_slope, line.high_slope))
    return Relation(
        *(len(dead_shares), float(result.statistic), float(interval.low), float(interval.high)),
        *(float(result.pvalue), slope, low, high),
    )


def answer(found: Relation | None, n: int) -> str:
    """Do dead units cost anything? In a sentence or two.

    Args:
        found: The relation, if there was one to look for.
        n: Completed trials that have both figures.
    """
    if found is None:
        return (
            f"That cannot be told from {n} completed trial{'s' * (n != 1)} with a dead share: at least {FEWEST} are "
            "needed, and they must differ."
        )
    size = f"{found.slope:+.2f} points of accuracy per 10 points of dead share ({_range(found)})"
    figures = f"rank correlation {found.rho:+.2f}, 95 % interval {found.low:+.2f} to {found.high:+.2f}, {_p(found)}"
    if not found.beyond_noise:
        return (
            f"Not that {found.n} trials can show: {figures}, which is within noise. The "
            f"median slope is {size}; a cost within that range cannot be ruled out."
        )
    if found.rho > 0:
        return f"No: the networks with more dead units were the more accurate ones ({figures}; {size})."
    return f"It seems so: the networks with more dead units were the less accurate ones ({figures}; {size})."


def _range(found: Relation) -> str:
    return f"95 % interval {found.slope_low:+.2f} to {found.slope_high:+.2f}"


def _p(found: Relation) -> str:
    return "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"
