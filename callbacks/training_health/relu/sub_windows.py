"""How the number of dead units falls with the examples seen, and what to expect of ten times as many."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from training_health.relu.pre_activations import SiteLook
from training_health.relu.unit_counts import WindowCounts

PARTS = (10, 5, 2, 1)  # a tenth of the window's examples, a fifth ...
FEWEST = 100  # examples of a window that has parts
_Z = 1.959964  # of a 95 % interval


class SubWindows(NamedTuple):
    """Dead units of all sites on parts of the window, and what is expected on ten times its examples.

    The parts are the first examples that the loader gave: in an order sorted by class, say, they do not stand for the
    whole, and the prediction does not hold. On several processes a part is the first examples of each, which together
    are the loader's first ones under Lightning's own sampler.
    """

    examples: tuple[int, ...]
    dead: tuple[int, ...]
    units: int
    certain: int = 0  # of these, dead for any input in the window's range

    @property
    def prediction(self) -> tuple[int, int, int, int]:
        """As `predicted`, with the examples that it is for in front."""
        expected, low, high = predicted(self.dead[0] - self.certain, self.dead[-1] - self.certain)
        return 10 * self.examples[-1], self.certain + expected, self.certain + low, self.certain + high

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        n, expected, low, high = self.prediction
        return {
            "n": list(self.examples), "dead": list(self.dead), "units": self.units,
            "predicted_n": n, "predicted": expected, "predicted_low": low, "predicted_high": high,
        }  # fmt: skip


def sub_windows(
    parts: Sequence[WindowCounts], sites: Mapping[str, Collection[int]], examples: float
) -> SubWindows | None:
    """Count the dead units on the first examples.

    Args:
        parts: Of every rank, in order.
        sites: The units to leave out, which gave NaN, of each site that is counted.
        examples: Of all ranks.

    Returns:
        None where it is unknown: with fewer than ``FEWEST`` examples, where an output's first dimension does not hold
        them, where a site was not reached by all, or where ranks have unequal numbers of them (but for one).
    """
    lengths = [part.examples for part in parts]
    if not sites or not examples >= FEWEST or max(lengths) - min(lengths) > 1:
        return None
    looks: dict[str, list[SiteLook]] = {
        site: [part.looks[site] for part in parts if site in part.looks] for site in sites
    }
    if any(len(found) < len(parts) or not all(look.aligned for look in found) for found in looks.values()):
        return None
    if any(part.sites[site].examples != part.examples for part in parts for site in sites):
        return None
    sizes = tuple(int(examples) // part for part in PARTS)
    firsts = []  # (ranks, units) each
    for site, found in looks.items():
        first = np.array([look.first for look in found])
        firsts.append(np.delete(first, [*sites[site]], axis=1) if sites[site] else first)
    first = np.concatenate(firsts, axis=1)
    numbers = np.where(first >= 0, first * len(parts) + np.arange(len(parts))[:, None], sizes[-1]).min(axis=0)
    return SubWindows(sizes, tuple(int((numbers >= size).sum()) for size in sizes), numbers.size)


def predicted(dead_on_a_tenth: int, dead: int) -> tuple[int, int, int]:
    """Predict how many units are dead on ten times the examples: the number, and its 95 % interval.

    The rates at which units fire spread over orders of magnitude, so about as many fire for the first time in each
    tenfold of the examples. With r of them between a tenth of the window and all of it, dead - r are expected. Where r
    is Poisson with a mean that is unknown (Jeffreys' prior), the next count is negative binomial with r + 1/2 successes
    of probability 1/2 (Hahn and Meeker, Statistical Intervals, 1991, on predicting a Poisson count); the interval is
    dead less its 97.5 % quantile up to ``dead`` itself, as fewer may fire than before, never more than all.

    >>> predicted(dead_on_a_tenth=66, dead=63)
    (60, 53, 63)
    >>> predicted(dead_on_a_tenth=5, dead=5)
    (5, 2, 5)
    """
    fired = max(dead_on_a_tenth - dead, 0)
    return max(dead - fired, 0), max(dead - _upper(fired + 0.5), 0), dead


def _upper(successes: float) -> int:
    """The 97.5 % quantile of the failures before so many successes of probability 1/2."""
    if successes > 500:  # normal: mean and half of the variance are `successes`
        return math.ceil(successes + _Z * math.sqrt(2 * successes))
    mass = below = 0.5**successes
    failures = 0
    while below < 0.975:
        mass *= (failures + successes) / (failures + 1) / 2
        failures += 1
        below += mass
    return failures
