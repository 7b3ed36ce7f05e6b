"""Life and death of units, from their activity over epochs. Arrays are (E, U): epochs by units.

Dead: activity exactly 0 over the window. Rare: above 0 and below ``rare_below``. A unit with NaN activity is unknown,
so neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Units per state and epoch, each (E,) int64, for one site or for the network.

    Attributes:
        deaths: Units dead at this epoch and not at the record before; 0 at the first record.
        revivals: The reverse.
    """

    epochs: np.ndarray
    n: np.ndarray
    units: int
    dead: np.ndarray
    rare: np.ndarray
    deaths: np.ndarray
    revivals: np.ndarray

    @property
    def dead_fraction(self) -> np.ndarray:
        """(E,) dead units / units."""
        return self.dead / max(self.units, 1)

    @property
    def rare_fraction(self) -> np.ndarray:
        """(E,) rare units / units."""
        return self.rare / max(self.units, 1)


def transitions(activity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Deaths and revivals, two (E, U) bool arrays; the first row is False, for nothing is known before it."""
    dead = activity == 0
    alive = activity > 0
    deaths = np.zeros_like(dead)
    revivals = np.zeros_like(dead)
    deaths[1:] = alive[:-1] & dead[1:]
    revivals[1:] = dead[:-1] & alive[1:]
    return deaths, revivals


def count_units(epochs: np.ndarray, n: np.ndarray, activity: np.ndarray, rare_below: float) -> Counts:
    """Counts of one site."""
    rare = (activity > 0) & (activity < rare_below)
    states = [(activity == 0), rare, *transitions(activity)]
    return Counts(epochs, n, activity.shape[1], *(state.sum(axis=1) for state in states))


def total_counts(sites: Sequence[Counts]) -> Counts:
    """Counts over all sites, at the epochs that every site has.

    A run that is writing, or was killed while it wrote, has an epoch for some sites only: that epoch is left out.
    """
    epochs = reduce(np.intersect1d, [site.epochs for site in sites]) if sites else np.empty(0, np.int64)
    rows = [np.searchsorted(site.epochs, epochs) for site in sites]

    def total(field: str) -> np.ndarray:
        return sum((getattr(s, field)[r] for s, r in zip(sites, rows, strict=True)), np.zeros(len(epochs), np.int64))

    n = sites[0].n[rows[0]] if sites else epochs
    states = [total(field) for field in ("dead", "rare", "deaths", "revivals")]
    return Counts(epochs, n, sum(site.units for site in sites), *states)


def dead_since(activity: np.ndarray) -> np.ndarray:
    """For each unit the row at which its present death began; E if it is not dead at the last row. (U,) int64."""
    rows, units = activity.shape
    if not rows:
        return np.zeros(units, np.int64)
    not_dead = activity != 0  # NaN too
    return np.where(not_dead.any(axis=0), rows - np.argmax(not_dead[::-1], axis=0), 0)


def order_by_death(activity: np.ndarray) -> np.ndarray:
    """Units for the map, top to bottom: dead ones by when they died, then the living from most to least quiet. (U,)."""
    if not len(activity):
        return np.arange(activity.shape[1])
    # lexsort is stable, so equal units keep their order
    return np.lexsort((np.nan_to_num(activity[-1], nan=2.0), dead_since(activity)))
