"""Mean and spread over seeds, and differences paired by seed with their 95 % intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from training_health.errors import UserError

try:
    from scipy import stats
except ModuleNotFoundError as error:
    raise UserError('This needs scipy, which is not installed: pip install "fmnist_pl[compare]"') from error

METHOD = "paired t interval, 95 %"
_ROUNDING = 1e-12  # a difference of this size between the same numbers is arithmetic


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of one metric over seeds; no deviation from fewer than two."""

    n: int
    mean: float
    sd: float | None


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of at least one value.

    >>> spread([1.0, 2.0, 3.0])
    Spread(n=3, mean=2.0, sd=1.0)
    """
    return Spread(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Difference:
    """A variant's metric minus the reference's, over the seeds that both have."""

    n: int  # pairs
    mean: float
    half_width: float | None  # of the 95 % interval around the mean; None from fewer than two pairs

    @property
    def verdict(self) -> Literal["different", "noise", "unknown"]:
        """Whether the interval leaves zero out. Of equal variants 5 % are called different, by chance."""
        if self.half_width is None:
            return "unknown"
        return "different" if abs(self.mean) > self.half_width + _ROUNDING else "noise"


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Compare two sequences of the same metric, pair by pair.

    Pairing by seed takes out what the seed does to both: the order of the images, and where the networks have the same
    shape the initial weights. The interval supposes differences that scatter normally.

    >>> paired_difference([0.92, 0.94, 0.93], [0.91, 0.91, 0.91]).verdict
    'noise'
    """
    found = spread([ours - theirs for ours, theirs in zip(values, reference, strict=True)])
    width = None if found.sd is None else float(stats.t.ppf(0.975, found.n - 1)) * found.sd / found.n**0.5
    return Difference(found.n, found.mean, width)
