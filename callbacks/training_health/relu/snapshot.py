"""What a window keeps of a network to be looked at: scales, the filters of first layers, and what fires rare units."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import nlargest, nsmallest
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from training_health.batches import first_tensor
from training_health.log_format import MOST_FILTERS, MOST_SIDE, Record
from training_health.relu.sites import ReLUCall
from training_health.relu.unit_counts import SiteCounts

RAREST = 6  # units whose examples are kept
TOP = 9  # examples of a unit
LONGEST_SIDE = 28  # pixels of a kept example
MOST_WEIGHTS = 2**15  # of a layer whose filters are kept
COLOURS = (1, 3)

Unit = tuple[str, int]  # a site and a unit's number
Text = dict[str, Any]


@dataclass
class Snapshot:
    """What one rank saw; plain values, so that ranks can exchange them.

    Attributes:
        n: Examples of the first batch, on which the scales were taken; NaN where unknown.
        scales: By site, the sum of squares of what goes into the ReLU, and how many numbers it is of.
        filters: By site of a first layer, the shape (U, C, H, W) of its weights and these.
        shape: Of a kept example, (C, H, W).
        examples: By unit, the examples on which its pre-activation is highest: that, and a byte per pixel.
    """

    n: float = math.nan
    scales: dict[str, tuple[float, int]] = field(default_factory=dict)
    filters: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    shape: list[int] = field(default_factory=list)
    examples: dict[Unit, list[tuple[float, bytes]]] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Iterable[Snapshot]) -> Snapshot:
        """Put the ranks' together: all scales, the highest examples, the first rank's filters."""
        whole = cls(0)
        for part in parts:
            whole.n += part.n
            for site, (squares, numbers) in part.scales.items():
                before = whole.scales.get(site, (0.0, 0))
                whole.scales[site] = before[0] + squares, before[1] + numbers
            whole.filters = part.filters | whole.filters
            whole.shape = whole.shape or part.shape
            for unit, found in part.examples.items() if part.shape == whole.shape else ():
                whole.examples[unit] = nlargest(TOP, [*whole.examples.get(unit, ()), *found])
        return whole

    def records(self, names: Mapping[str, str]) -> Iterator[Record]:
        """The ``activation_scale`` and the ``filters``, by the short ``names`` of sites: all, in the same order."""
        if self.scales and names:
            sums = (self.scales.get(site, (0.0, 0)) for site in names)
            values = [math.sqrt(squares / numbers) if numbers else math.nan for squares, numbers in sums]
            yield "activation_scale", "activation_scale", [self.n, *values], {"sites": [*names.values()]}
        for site, (shape, weights) in self.filters.items():
            name = names.get(site, site)
            yield f"filters/{name}", "filters", [math.nan, *weights], {"site": name, "shape": shape}

    def example_text(self, names: Mapping[str, str], epoch: int, n: float, sites: Mapping[str, SiteCounts]) -> Text:
        """The text record ``examples``; ``sites``: the window's counts, by short name."""
        units = [
            {
                "site": names[site],
                "unit": unit,
                "activity": sites[names[site]].active[unit] / sites[names[site]].pairs,
                "values": [value for value, _ in found],
                "pixels": base64.b64encode(b"".join(pixels for _, pixels in found)).decode(),
            }
            for (site, unit), found in self.examples.items()
            if names.get(site) in sites
        ]
        return {"epoch": epoch, "n": None if math.isnan(n) else n, "shape": self.shape, "units": units}


class SnapshotTaker:
    """Collects a window's `Snapshot` on the device, without waiting for it."""

    def __init__(self) -> None:
        self.start(False, ())

    def start(self, filters: bool, units: Iterable[Unit]) -> None:
        """Begin a window: whether filters are wanted, and of which units the examples."""
        self._wants_filters = filters
        self._units: dict[str, list[int]] = {}
        for site, unit in units:
            self._units.setdefault(site, []).append(unit)
        self._batches, self._n, self._images = 0, math.nan, torch.empty(0)
        self._scales: dict[str, tuple[Tensor, int]] = {}
        self._filters: dict[str, Tensor] = {}
        self._top: dict[Unit, tuple[Tensor, Tensor]] = {}  # (k,), (k, C, H, W)

    def begin_batch(self, batch: Any, counted: float) -> None:  # noqa: ANN401 - whatever the user's loader yields
        """Announce a batch, None where it is not known, and how many of its examples count."""
        self._batches += 1
        if self._batches == 1:
            self._n = counted
        self._images = torch.empty(0)
        with suppress(Exception):
            images = first_tensor(batch) if self._units else None
            if images is not None and images.dim() == 4 and images.shape[1] in COLOURS:
                self._images = images.detach()[: None if math.isnan(counted) else int(counted)]

    def add(self, call: ReLUCall, values: Tensor, dim: int) -> None:
        """Take a call's pre-activations (N, ...), of the examples that count; whatever fails is left out."""
        if self._batches > 1 and not self._units:
            return
        with suppress(Exception):
            if self._batches == 1:
                wide = torch.promote_types(values.dtype, torch.float32)
                norm, numbers = torch.linalg.vector_norm(values, dtype=wide), values.numel()
                if call.site in self._scales:  # which gets the batch in parts
                    before = self._scales[call.site]
                    norm, numbers = norm.hypot(before[0]), numbers + before[1]
                self._scales[call.site] = norm, numbers
                if self._wants_filters and call.first_layer and call.feed is not None:
                    self._keep_filters(call.site, call.feed.weight.detach(), call.feed.unit_dim)
            if dim and values.shape[0] == self._images.shape[0]:
                for unit in self._units.get(call.site, ()):
                    self._keep_examples((call.site, unit), values.select(dim, unit))

    def _keep_filters(self, site: str, weight: Tensor, unit_dim: int) -> None:
        if unit_dim != 0 or weight.dim() != 4 or weight.shape[1] not in COLOURS:
            return
        if weight.numel() <= MOST_WEIGHTS and len(weight) <= MOST_FILTERS and max(weight.shape[2:]) <= MOST_SIDE:
            self._filters[site] = weight.float().clone()

    def _keep_examples(self, unit: Unit, values: Tensor) -> None:
        fired, at = values.reshape(len(values), -1).amax(1).nan_to_num(-math.inf).topk(min(TOP, len(values)))
        pictures = _small(self._images.index_select(0, at))
        if unit in self._top:
            known = self._top[unit]
            fired, pictures = torch.cat([known[0], fired]), torch.cat([known[1], pictures])
            fired, at = fired.topk(min(TOP, len(fired)))
            pictures = pictures.index_select(0, at)
        self._top[unit] = fired, pictures

    def take(self) -> Snapshot:
        """Fetch everything from the device, and keep nothing."""
        snapshot = Snapshot()
        with suppress(Exception):  # the counts are worth more
            snapshot = self._taken()
        self.start(False, ())
        return snapshot

    def _taken(self) -> Snapshot:
        kept = [norm.float() for norm, _ in self._scales.values()]
        together = len({norm.device for norm in kept}) == 1
        norms = torch.stack(kept).tolist() if together else [float(norm) for norm in kept]
        numbers = [count for _, count in self._scales.values()]
        scales = {site: (norm**2, count) for site, norm, count in zip(self._scales, norms, numbers, strict=True)}
        filters = {site: (list(weight.shape), weight.flatten().tolist()) for site, weight in self._filters.items()}
        examples = {unit: _as_bytes(*top) for unit, top in self._top.items()}
        shape = next((list(pictures.shape[1:]) for _, pictures in self._top.values()), [])
        return Snapshot(self._n if self._batches else 0.0, scales, filters, shape, examples)


def rarest(sites: Mapping[str, SiteCounts]) -> list[Unit]:
    """Give the units that fire least of all that fire, from the counts of a window."""
    fired = ((part, name, unit) for name, site in sites.items() for unit, part in enumerate(site.activity) if part > 0)
    return [(name, unit) for _, name, unit in nsmallest(RAREST, fired)]


def _small(pictures: Tensor) -> Tensor:
    """Average pixels until the longer side of (k, C, H, W) is short enough."""
    sides = pictures.shape[2:]
    shrink = max(1.0, max(sides) / LONGEST_SIDE)
    height, width = (max(1, round(side / shrink)) for side in sides)
    return pictures.float() if shrink == 1 else adaptive_avg_pool2d(pictures.float(), (height, width))


def _as_bytes(fired: Tensor, pictures: Tensor) -> list[tuple[float, bytes]]:
    """Each example on which the unit fires, its pixels stretched from the darkest to the brightest."""
    low, high = (extreme(pictures.flatten(1), 1)[:, None, None, None] for extreme in (torch.amin, torch.amax))
    pixels = ((pictures - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8).cpu().numpy()
    return [
        (value, picture.tobytes())
        for value, picture in zip(fired.tolist(), pixels, strict=True)
        if 0 < value < math.inf
    ]
