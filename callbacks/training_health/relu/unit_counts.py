"""Activity of all ReLU sites over a window: what each rank adds up, and what the ranks' sums say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from training_health.batches import BatchSize
from training_health.relu.sites import ReLUCall
from training_health.relu.unit_activity import ActivityCounter, FlagBuffer


@dataclass
class SiteCounts:
    """One site's sums over a window; plain numbers, so that ranks can exchange and add them.

    Attributes:
        activation: "relu", "relu6" or "hardtanh".
        positions: Outputs per example and unit: H * W for a convolution, 1 for a dense layer.
        first_layer: Whether the site's inputs do not change during training.
        pairs: (Example, position) pairs seen per unit.
        active: Per unit, pairs with an output above zero.
        magnitude: Per unit, sum of |output|; None where not asked for.

    >>> site = SiteCounts("relu", 1, True, pairs=200, active=[0, 1, 100])
    >>> site.dead, site.rare(below=0.01), site.activity
    ([0], [1], [0.0, 0.005, 0.5])
    """

    activation: str
    positions: int
    first_layer: bool
    pairs: int
    active: list[int]
    magnitude: list[float] | None = None

    def __add__(self, other: SiteCounts) -> SiteCounts:
        if self.units != other.units:
            raise ValueError("the ranks disagree on the number of units")
        active = [a + b for a, b in zip(self.active, other.active, strict=True)]
        magnitude = [a + b for a, b in zip(self.magnitude or [], other.magnitude or [], strict=True)] or None
        return replace(self, pairs=self.pairs + other.pairs, active=active, magnitude=magnitude)

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.active)

    @property
    def activity(self) -> list[float]:
        """Fraction of pairs with output above zero, per unit."""
        return [count / self.pairs for count in self.active]

    @property
    def dead(self) -> list[int]:
        """Indices of the units that were never above zero."""
        return [unit for unit, count in enumerate(self.active) if count == 0]

    def rare(self, below: float) -> list[int]:
        """Indices of the units above zero in a fraction of pairs smaller than ``below``, but not never."""
        return [unit for unit, count in enumerate(self.active) if 0 < count < below * self.pairs]

    @property
    def sparsity(self) -> float:
        """Fraction of zero outputs over all units."""
        return 1 - sum(self.active) / (self.pairs * self.units)

    def dormant(self, tau: float) -> list[int]:
        """Indices of the units whose dormancy score is at most ``tau`` (Sokar et al. 2023, equation 1)."""
        assert self.magnitude is not None
        mean = sum(self.magnitude) / self.units
        return [unit for unit, total in enumerate(self.magnitude) if total <= tau * mean]


@dataclass
class WindowCounts:
    """All sites' sums over a window on one rank, in forward order."""

    examples: int = 0
    sites: dict[str, SiteCounts] = field(default_factory=dict)


def combined(parts: Iterable[WindowCounts]) -> WindowCounts:
    """Add up the ranks' windows; a site counts with the ranks that reached it."""
    total = WindowCounts()
    for part in parts:
        total.examples += part.examples
        for name, counts in part.sites.items():
            total.sites[name] = total.sites[name] + counts if name in total.sites else counts
    return total


@dataclass
class _RunningSite:
    """One site's sums while the window runs; those per unit are on the outputs' device."""

    counts: SiteCounts  # without the per-unit sums
    active: ActivityCounter
    magnitude: Tensor | None


class UnitCounter:
    """Adds up, on the device and without waiting for it, what `ReLUSites` reports.

    Args:
        unit_dims: Overrides of the dimension that holds a site's units, by pattern over its qualified name.
        magnitudes: Sum |output| too, for the dormancy score.
    """

    def __init__(self, unit_dims: dict[str, int] | None = None, magnitudes: bool = False) -> None:
        self._unit_dims, self._magnitudes = unit_dims or {}, magnitudes
        self._flags = FlagBuffer()  # outlives the windows
        self.clear()

    def clear(self) -> None:
        """Start a new window."""
        self._examples, self._batch = 0, BatchSize(0, 0)
        self._sites: dict[str, _RunningSite] = {}

    def begin_batch(self, size: BatchSize) -> None:
        """Announce a batch."""
        self._batch = size
        self._examples += size.counted

    def add(self, call: ReLUCall) -> None:
        """Add one call's output.

        Raises:
            ValueError: If the site has another number of units than before, or examples cannot be left out.
        """
        output = call.output.detach()
        dim = self._dim(call)
        if self._batch.counted < self._batch.examples:
            if len(output) != self._batch.examples:
                raise ValueError(
                    "a repeated example cannot be left out: the first dimension does not hold the examples"
                )
            output = output[: self._batch.counted]
        if output.numel() == 0:
            return
        units = output.shape[dim]
        site = self._sites.get(call.site)
        if site is None:
            counts = SiteCounts(call.activation, call.output[:1].numel() // units, call.first_layer, 0, [])
            with torch.inference_mode(False):  # normal tensors outlive inference mode
                magnitude = torch.zeros(units, device=output.device) if self._magnitudes else None
            site = _RunningSite(counts, ActivityCounter(units, output.device, self._flags), magnitude)
            self._sites[call.site] = site
        if units != site.active.units:
            del self._sites[call.site]
            raise ValueError("its number of units changes")
        site.active.add(output, dim)
        site.counts.pairs += output.numel() // units
        if site.magnitude is not None:
            others = [d for d in range(output.dim()) if d != dim]
            site.magnitude += output.abs().sum(dim=others, dtype=torch.float32)

    def take(self) -> WindowCounts:
        """Fetch everything from the device at once, and start a new window."""
        sites, window = list(self._sites.values()), WindowCounts(self._examples)
        sizes = [site.active.units for site in sites]
        active = _fetched([site.active.counts() for site in sites], sizes)
        magnitudes = _fetched([site.magnitude for site in sites if site.magnitude is not None], sizes)
        for name, site in self._sites.items():
            window.sites[name] = replace(site.counts, active=next(active), magnitude=next(magnitudes, None))
        self.clear()
        return window

    def _dim(self, call: ReLUCall) -> int:
        for pattern, dim in self._unit_dims.items():
            if fnmatchcase(call.site, pattern):
                return dim % call.output.dim()
        return call.unit_dim


def _fetched(vectors: list[Tensor], sizes: list[int]) -> Iterator[list[Any]]:
    """The vectors as lists, in one transfer."""
    return (part.tolist() for part in torch.cat(vectors).cpu().split(sizes)) if vectors else iter(())
