"""Life and death of units, from their activity over epochs. Arrays are (E, U): epochs by units.

Dead: activity exactly 0 over the window. Rare: above 0 and below ``rare_below``. Not a number: activity NaN, as the
unit's output was; such a unit is neither, and fractions leave it out.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Counts:
    """Units per state and epoch, each (E,) int64, for one site or for the network.

    Attributes:
        n: Examples; 0 where unknown.
        nan: Units whose output was not a number.
        deaths: Units dead at this epoch and not at the record before; 0 at the first record.
        revivals: The reverse.
    """

    epochs: np.ndarray
    n: np.ndarray
    units: int
    dead: np.ndarray
    rare: np.ndarray
    nan: np.ndarray
    deaths: np.ndarray
    revivals: np.ndarray

    @property
    def known(self) -> int:
        """Units whose last output was a number; 0 without records."""
        return self.units - int(self.nan[-1]) if len(self.nan) else 0


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
    """Counts the columns of ``activity`` per state."""
    rare = (activity > 0) & (activity < rare_below)
    states = [activity == 0, rare, np.isnan(activity), *transitions(activity)]
    return Counts(epochs, n, activity.shape[1], *(state.sum(axis=1) for state in states))


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


def died_in(epochs: np.ndarray, activity: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """The epoch in which the present death of each unit began, (U,) float.

    -1 for a unit that was born dead: dead before the first step, ``start`` (U,), and at every record since. NaN for a
    unit that is not dead at the last record, and for one that was dead at the first record and whose start is unknown.
    """
    rows, since = len(activity), dead_since(activity)
    if not rows:
        return np.full(activity.shape[1], np.nan)
    died = epochs[np.minimum(since, rows - 1)].astype(float)
    if start is None:
        died[since == 0] = np.nan
    else:
        died[(since == 0) & (start == 0)] = -1
        died[(since == 0) & np.isnan(start)] = np.nan
    died[since == rows] = np.nan
    return died
