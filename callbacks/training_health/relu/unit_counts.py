"""Activity of all ReLU sites over a window: what each rank adds up, and what the ranks' sums say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from training_health.relu.sites import ReLUCall
from training_health.relu.unit_activity import ActivityCounter, FlagBuffer


@dataclass
class SiteCounts:
    """One site's sums over a window; plain numbers, so that ranks can exchange and add them."""

    activation: str
    positions: int  # outputs per image and unit: H * W for a convolution, 1 for a dense layer
    first_layer: bool
    pairs: int  # (image, position) pairs seen per unit
    active: list[int]  # per unit: pairs with an output above zero
    magnitude: list[float] | None  # per unit: sum of |output|, where asked for

    def __add__(self, other: SiteCounts) -> SiteCounts:
        if len(self.active) != len(other.active):
            raise ValueError("the ranks disagree on the number of units")
        magnitude = None
        if self.magnitude is not None and other.magnitude is not None:
            magnitude = [a + b for a, b in zip(self.magnitude, other.magnitude, strict=True)]
        active = [a + b for a, b in zip(self.active, other.active, strict=True)]
        pairs = self.pairs + other.pairs
        return SiteCounts(self.activation, self.positions, self.first_layer, pairs, active, magnitude)

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.active)

    @property
    def activity(self) -> list[float]:
        """Share of pairs with output above zero, per unit."""
        return [count / self.pairs for count in self.active]

    @property
    def dead(self) -> list[int]:
        """Indices of the units that were never above zero."""
        return [unit for unit, count in enumerate(self.active) if count == 0]

    def rare(self, below: float) -> list[int]:
        """Indices of the units above zero in a share of pairs smaller than ``below``, but not never."""
        return [unit for unit, count in enumerate(self.active) if 0 < count < below * self.pairs]

    @property
    def sparsity(self) -> float:
        """Share of zero outputs over all units."""
        return 1 - sum(self.active) / (self.pairs * self.units)

    def dormant(self, tau: float) -> list[int]:
        """Indices of the units whose dormancy score is at most ``tau`` (Sokar et al. 2023, equation 1)."""
        assert self.magnitude is not None
        mean = sum(self.magnitude) / self.units
        return [unit for unit, total in enumerate(self.magnitude) if total <= tau * mean]


@dataclass
class WindowCounts:
    """All sites' sums over a window on one rank, in forward order."""

    images: int = 0
    sites: dict[str, SiteCounts] = field(default_factory=dict)


def combined(parts: Iterable[WindowCounts]) -> WindowCounts:
    """Add up the ranks' windows; a site counts with the ranks that reached it."""
    total = WindowCounts()
    for part in parts:
        total.images += part.images
        for name, counts in part.sites.items():
            total.sites[name] = total.sites[name] + counts if name in total.sites else counts
    return total


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
        self._images = self._batch = self._keep = 0
        self._meta: dict[str, tuple[str, int, bool]] = {}
        self._pairs: dict[str, int] = {}
        self._active: dict[str, ActivityCounter] = {}
        self._magnitude: dict[str, Tensor] = {}

    def begin_batch(self, images: int, keep: int) -> None:
        """Announce a batch of ``images``, of which the first ``keep`` count."""
        self._batch, self._keep = images, keep
        self._images += keep

    def add(self, call: ReLUCall) -> None:
        """Add one call's output.

        Raises:
            ValueError: If the site has another number of units than before, or images cannot be left out.
        """
        output = call.output.detach()
        dim = self._dim(call)
        if self._keep < self._batch:
            if len(output) != self._batch:
                raise ValueError("a repeated image cannot be left out: the first dimension does not hold the images")
            output = output[: self._keep]
        if output.numel() == 0:
            return
        units = output.shape[dim]
        if call.site not in self._active:
            self._meta[call.site] = (call.activation, call.output[:1].numel() // units, call.first_layer)
            self._pairs[call.site] = 0
            self._active[call.site] = ActivityCounter(units, output.device, self._flags)
            if self._magnitudes:
                with torch.inference_mode(False):  # normal tensors outlive inference mode
                    self._magnitude[call.site] = torch.zeros(units, device=output.device)
        if units != self._active[call.site].units:
            del self._active[call.site]
            raise ValueError("its number of units changes")
        self._active[call.site].add(output, dim)
        self._pairs[call.site] += output.numel() // units
        if self._magnitudes:
            others = [d for d in range(output.dim()) if d != dim]
            self._magnitude[call.site] += output.abs().sum(dim=others, dtype=torch.float32)

    def take(self) -> WindowCounts:
        """Fetch everything from the device at once, and start anew."""
        sites = list(self._active)
        flat = torch.cat([self._active[s].counts() for s in sites]).tolist() if sites else []
        magnitudes = torch.cat([self._magnitude[s] for s in sites]).tolist() if sites and self._magnitudes else None
        window, start = WindowCounts(self._images), 0
        for site in sites:
            end = start + self._active[site].units
            magnitude = None if magnitudes is None else magnitudes[start:end]
            activation, positions, first = self._meta[site]
            window.sites[site] = SiteCounts(activation, positions, first, self._pairs[site], flat[start:end], magnitude)
            start = end
        self.clear()
        return window

    def _dim(self, call: ReLUCall) -> int:
        for pattern, dim in self._unit_dims.items():
            if fnmatchcase(call.site, pattern):
                return dim % call.output.dim()
        return call.unit_dim
