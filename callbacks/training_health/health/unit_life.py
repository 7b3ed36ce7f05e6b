"""Life and death of units, from their activity over epochs. Arrays are (E, U): epochs by units.

Dead: activity exactly 0 over the window. Rare: above 0 and below ``rare_below``. A unit with NaN activity is unknown,
so neither.
"""

from dataclasses import dataclass

import numpy as np

from training_health.health.health_run import HealthRun, Site


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
    def dead_share(self) -> np.ndarray:
        """(E,) dead units / units."""
        return self.dead / max(self.units, 1)

    @property
    def rare_share(self) -> np.ndarray:
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


def site_counts(site: Site) -> Counts:
    """Counts of one site."""
    deaths, revivals = transitions(site.activity)
    return Counts(
        epochs=site.epochs,
        n=site.n,
        units=site.units,
        dead=(site.activity == 0).sum(axis=1),
        rare=((site.activity > 0) & (site.activity < site.rare_below)).sum(axis=1),
        deaths=deaths.sum(axis=1),
        revivals=revivals.sum(axis=1),
    )


def network_counts(run: HealthRun) -> Counts | None:
    """Counts over all sites, at the epochs that every site has; None without sites.

    A run that is writing, or was killed while it wrote, has an epoch for some sites only: that epoch is left out.
    """
    if not run.sites:
        return None
    per_site = [site_counts(site) for site in run.sites]
    epochs = per_site[0].epochs
    for counts in per_site[1:]:
        epochs = np.intersect1d(epochs, counts.epochs)
    rows = [np.searchsorted(counts.epochs, epochs) for counts in per_site]

    def total(field: str) -> np.ndarray:
        return sum((getattr(c, field)[r] for c, r in zip(per_site, rows, strict=True)), np.zeros(len(epochs), np.int64))

    return Counts(
        epochs=epochs,
        n=per_site[0].n[rows[0]],
        units=sum(site.units for site in run.sites),
        dead=total("dead"),
        rare=total("rare"),
        deaths=total("deaths"),
        revivals=total("revivals"),
    )


def dead_since(activity: np.ndarray) -> np.ndarray:
    """For each unit the row at which its present death began, -1 if it is not dead at the last row. (U,) int64."""
    rows, units = activity.shape
    since = np.full(units, -1)
    still_dead = np.ones(units, dtype=bool)
    for row in range(rows - 1, -1, -1):
        still_dead &= activity[row] == 0
        since[still_dead] = row
    return since


def order_by_death(activity: np.ndarray) -> np.ndarray:
    """Units for the map, top to bottom: dead ones by when they died, then the living from most to least quiet. (U,)."""
    if not len(activity):
        return np.arange(activity.shape[1])
    since = dead_since(activity)
    death_row = np.where(since >= 0, since, len(activity))
    return np.lexsort((np.arange(activity.shape[1]), np.nan_to_num(activity[-1], nan=2.0), death_row))
