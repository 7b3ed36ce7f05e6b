"""Mean and spread over seeds, and differences paired by seed with their 95 % intervals (scipy's)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

LEVEL = 0.95
METHOD = "paired t interval (scipy.stats.ttest_rel), 95 %"
_SAME = 1e-12  # differences that spread less than this are one number: rounding, not scatter


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of one figure over seeds; no deviation from fewer than two."""

    n: int
    mean: float
    sd: float | None


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of at least one value."""
    array = np.asarray(values, np.float64)
    return Spread(len(array), float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None)


@dataclass(frozen=True)
class Difference:
    """A variant's figure minus the reference's, over the seeds that both have.

    Attributes:
        n: Number of pairs.
        mean: Of the differences.
        half_width: Of the 95 % interval around the mean; None from fewer than two pairs.
        p_value: Two-sided, of the paired t test; None likewise.
    """

    n: int
    mean: float
    half_width: float | None
    p_value: float | None

    @property
    def verdict(self) -> Literal["different", "noise", "unknown"]:
        """Whether the interval leaves zero out. Of equal variants 5 % are called different, by chance."""
        if self.half_width is None:
            return "unknown"
        return "different" if abs(self.mean) > self.half_width else "noise"


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Compare two sequences of the same figure, pair by pair.

    Pairing by seed takes out what the seed does to both alike: the order of the images, and where the networks have
    the same shape the initial weights. The interval supposes differences that scatter normally.

    Args:
        values: The variant's, in the order of seeds.
        reference: The reference variant's of the same seeds.

    Raises:
        ValueError: If the lengths differ or are zero.
    """
    if len(values) != len(reference) or len(values) == 0:
        raise ValueError(f"Pairs are needed, got {len(values)} and {len(reference)} values.")
    differences = np.subtract(values, reference, dtype=np.float64)
    mean, n = float(differences.mean()), len(differences)
    if n < 2:
        return Difference(n, mean, None, None)
    if np.ptp(differences) < _SAME:  # a t test would divide by the spread
        mean = 0.0 if abs(mean) < _SAME else mean
        return Difference(n, mean, 0.0, 1.0 if mean == 0 else 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "precision loss": spread small against the mean
        result = stats.ttest_rel(values, reference)
    interval = result.confidence_interval(LEVEL)
    return Difference(n, mean, float(interval.high - interval.low) / 2, float(result.pvalue))
