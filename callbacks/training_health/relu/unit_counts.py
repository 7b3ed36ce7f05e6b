"""Activity of all ReLU sites over a window: what each rank adds up, and what the ranks' sums say."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from training_health.batches import BatchSize
from training_health.relu.feeds import Feed
from training_health.relu.pre_activations import FeedLook, SiteLook, UnitLook, fetched, summed
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
        not_a_number: Units with an output that was NaN or infinite: neither dead nor alive.
        examples: Those of the batches that reached the site, also where a part of such a batch went elsewhere; NaN
            where one hid its size, 0 where they were not counted.

    >>> site = SiteCounts("relu", 1, True, pairs=200, active=[0, 1, 100, 0], not_a_number=[3])
    >>> site.dead, site.rare(below=0.01), site.activity
    ([0], [1], [0.0, 0.005, 0.5, nan])
    """

    activation: str
    positions: int
    first_layer: bool
    pairs: int
    active: list[int]
    not_a_number: list[int] = field(default_factory=list)
    examples: float = 0

    def __add__(self, other: SiteCounts) -> SiteCounts:
        if self.units != other.units:
            raise ValueError("the ranks disagree on the number of units")
        active = [a + b for a, b in zip(self.active, other.active, strict=True)]
        broken = sorted({*self.not_a_number, *other.not_a_number})
        pairs, examples = self.pairs + other.pairs, self.examples + other.examples
        return replace(self, pairs=pairs, active=active, not_a_number=broken, examples=examples)

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.active)

    @cached_property
    def known(self) -> dict[int, int]:
        """``active`` of the units that gave numbers, by index."""
        broken = set(self.not_a_number)
        if not broken:
            return dict(enumerate(self.active))
        return {unit: count for unit, count in enumerate(self.active) if unit not in broken}

    @property
    def activity(self) -> list[float]:
        """Fraction of pairs with output above zero, per unit; NaN where it is not a number."""
        known = self.known
        return [known[unit] / self.pairs if unit in known else math.nan for unit in range(self.units)]

    @cached_property
    def dead(self) -> list[int]:
        """Indices of the units that were never above zero."""
        return [unit for unit, count in self.known.items() if count == 0]

    def rare(self, below: float) -> list[int]:
        """Indices of the units above zero in a fraction of pairs smaller than ``below``, but not never."""
        return [unit for unit, count in self.known.items() if 0 < count < below * self.pairs]

    @property
    def sparsity(self) -> float:
        """Fraction of zero outputs over all units that gave numbers; NaN without any."""
        known = self.known
        return 1 - sum(known.values()) / (self.pairs * len(known)) if known else math.nan


@dataclass
class WindowCounts:
    """All sites' sums over a window on one rank, in forward order; ``examples`` is NaN where a batch hid its size.

    ``looks`` holds what went into the sites that could be looked at.
    """

    examples: float = 0
    sites: dict[str, SiteCounts] = field(default_factory=dict)
    looks: dict[str, SiteLook] = field(default_factory=dict)

    def without(self, names: Container[str]) -> WindowCounts:
        """Leave sites out."""
        return replace(self, sites={name: counts for name, counts in self.sites.items() if name not in names})


def combined(parts: Sequence[WindowCounts]) -> WindowCounts:
    """Add up the ranks' windows; a site counts with the ranks that reached it."""
    return WindowCounts(sum(part.examples for part in parts), summed(part.sites for part in parts))


# Batches of a site are counted together until they have this many elements: a call costs some 0.1 ms of its own.
_TOGETHER = 1 << 14
# Sites that never had so many are counted together with others of their shape, up to this many elements.
_SITES_TOGETHER = 1 << 20


class _Totals:
    """Adds up the units of one site, or of several that are alike, one after the other."""

    def __init__(self, units: int, device: torch.device, flags: FlagBuffer) -> None:
        self.active = ActivityCounter(units, device, flags)
        self.look: UnitLook | None = UnitLook(units, device)

    def add(self, values: Tensor, dim: int, start: float) -> None:
        """Take pre-activations, as `UnitLook.add` does."""
        with self._looking() as look:
            if look is not None:
                look.narrow(values, dim, start)
        picked = self.active.add(values, dim, None if self.look is None else self.look.candidates)
        with self._looking() as look:
            if look is not None:
                look.add(picked, values, dim, start)

    @contextmanager
    def _looking(self) -> Iterator[UnitLook | None]:
        """Give the look; where it fails, such as for want of memory, the counts go on without."""
        try:
            yield self.look
        except Exception:
            self.look = None


class _Site:
    """What goes into one site in a window."""

    def __init__(self, counts: SiteCounts, units: int, flags: FlagBuffer) -> None:
        self.counts, self.units, self._flags = counts, units, flags  # counts lack the sums per unit
        self.totals: _Totals | None = None  # perhaps shared
        self.place = 0  # of its first unit in the totals
        self.feed: FeedLook | None = FeedLook()
        self.waiting: list[Tensor] = []  # small batches, not counted so far
        self.dim, self.start = 0, 0.0  # of the waiting ones
        self.like = torch.Size(), torch.float32  # an example's shape, and the type
        self.elements, self._next = 0, 0.0

    @property
    def goes_on(self) -> bool:
        """Whether any unit may still turn out to be dead."""
        return self.totals is None or (self.totals.look is not None and self.totals.look.goes_on)

    def add(self, values: Tensor, dim: int, start: float, feed: Feed | None) -> None:
        """Take one call's pre-activations, as `UnitLook.add` does."""
        try:
            if self.feed is not None:
                self.feed.add(feed, self.goes_on)
        except Exception:  # as in `_Totals`
            self.feed = None
        shape, elements = values.shape, values.numel()
        goes_on = start == self._next or (math.isnan(start) and math.isnan(self._next))
        if not goes_on or dim != self.dim or self.like != (shape[1:], values.dtype) or not self.waiting:
            self.count_waiting()
            self.dim, self.start, self.like = dim, start, (shape[1:], values.dtype)
        # What is more than a tensor may not be put together with others.
        if elements >= _TOGETHER or dim == 0 or not values.is_cpu or type(values) is not Tensor:
            self.count_waiting()
            self.start = start
            self._count(values)
            return
        self.waiting.append(values.clone())  # what comes next may write over it
        self.elements, self._next = self.elements + elements, start + shape[0]
        if self.elements >= _TOGETHER:
            self.count_waiting()

    def count_waiting(self) -> None:
        """Count the batches that wait."""
        if self.waiting:
            waiting, self.waiting, self.elements = self.waiting, [], 0
            self._count(torch.cat(waiting))

    def _count(self, values: Tensor) -> None:
        if self.totals is None:
            self.totals = _Totals(self.units, values.device, self._flags)
        self.totals.add(values, self.dim, self.start)


def _totals_of(sites: Collection[_Site], flags: FlagBuffer) -> list[_Totals]:
    """Count what waits, sites together that are alike and have not been counted before; give the totals of all."""
    alike = defaultdict[object, list[_Site]](list)
    for site in sites:
        if site.totals is not None:
            site.count_waiting()
        elif site.waiting:
            ahead, behind = site.like[0][: site.dim - 1], site.like[0][site.dim :]  # of the units' dimension
            kind = ahead, behind, site.like[1], None if math.isnan(site.start) else site.start
            alike[kind, tuple(part.shape[0] for part in site.waiting)].append(site)
    for group in alike.values():
        count = max(1, _SITES_TOGETHER // max(site.elements for site in group))
        for some in (group[first : first + count] for first in range(0, len(group), count)):
            batches = zip(*(site.waiting for site in some), strict=True)
            values = torch.cat([torch.cat(batch, some[0].dim) for batch in batches])
            totals = _Totals(values.shape[some[0].dim], values.device, flags)
            totals.add(values, some[0].dim, some[0].start)
            places = accumulate((site.units for site in some), initial=0)
            for site, place in zip(some, places, strict=False):
                site.totals, site.place, site.waiting = totals, place, []
    return list(dict.fromkeys(site.totals for site in sites if site.totals is not None))


class UnitCounter:
    """Adds up, on the device and without waiting for it, what goes into the ReLUs that `ReLUSites` reports.

    A ReLU's output is above zero where what goes in is.

    Args:
        unit_dims: Overrides of the dimension that holds a site's units, by pattern over its qualified name.
        also: Called with each call, the pre-activations of the examples that count, and the units' dimension in these.
    """

    def __init__(self, unit_dims: dict[str, int], also: Callable[[ReLUCall, Tensor, int], None] | None = None) -> None:
        self.assumed: dict[str, int] = {}  # sites whose unit dimension is neither known nor named: which was taken
        self._unit_dims, self._also = unit_dims, also
        self._flags = FlagBuffer()  # outlives the windows
        self.clear()

    def clear(self) -> None:
        """Start a new window."""
        self._examples: float = 0
        self._batch = BatchSize(0, 0)
        self._sites: dict[str, _Site] = {}
        self._called: set[str] = set()  # in this batch
        self._whole: set[str] = set()  # those that got all of it at once

    def begin_batch(self, size: BatchSize) -> None:
        """Announce a batch, NaN for a size that is not known before its step."""
        self._batch = size
        self._called.clear()
        self._whole.clear()

    def end_batch(self, size: BatchSize) -> None:
        """Add the batch's examples, NaN for a size that is unknown."""
        self._examples += size.counted
        for site in self._called & self._sites.keys():
            self._sites[site].counts.examples += size.counted

    def add(self, call: ReLUCall) -> bool:
        """Add one call; returns whether any of its units may still turn out to be dead.

        Raises:
            ValueError: If the site has another number of units than before, or examples cannot be left out.
        """
        call = self._joined(call)
        # What a constant is broadcast to is rectified in another shape.
        source = call.input if call.input.shape == call.output.shape else call.output
        output, dim, examples = source.detach() if source.requires_grad else source, call.unit_dim, self._batch.examples
        named = None
        if self._unit_dims:
            named = next((dim for pattern, dim in self._unit_dims.items() if fnmatchcase(call.site, pattern)), None)
        if named is not None:
            if not -output.dim() <= named < output.dim():
                raise ValueError(f"`unit_dims` names dimension {named}, and it has {output.dim()}")
            dim = named % output.dim()
        elif not call.derived:
            self.assumed[call.site] = dim
        if self._batch.counted < examples:
            if output.shape[0] != examples:
                raise ValueError("the first dimension does not hold the examples: a repeated one cannot be left out")
            output = output[: int(self._batch.counted)]
        elements = output.numel()
        if elements == 0:
            return True
        units = output.shape[dim]
        feed = call.feed if call.feed is not None and call.feed.units == units and dim == call.unit_dim else None
        site = self._sites.get(call.site)
        if site is None:
            alone = self._is_one_example(output.shape, dim)
            positions = elements // units // (1 if alone else output.shape[1 if dim == 0 else 0])
            site = _Site(SiteCounts(call.activation, positions, call.first_layer, 0, []), units, self._flags)
            self._sites[call.site] = site
        if units != site.units:
            raise ValueError("its number of units changes from batch to batch")
        site.add(output, dim, self._start(call.site, output), feed)
        if self._also is not None:
            self._also(call, output, dim)
        site.counts.pairs += elements // units
        site.counts.first_layer &= call.first_layer
        return site.goes_on

    def _joined(self, call: ReLUCall) -> ReLUCall:
        """Give a call for a part of the batch the site of the other parts', as in a loop over images or chunks."""
        shape, dim = call.output.shape, call.unit_dim
        time_first = dim > 1 and shape[1] == self._batch.counted
        alone = self._is_one_example(shape, dim)
        if not alone and (not dim or not shape[0] < self._batch.counted or time_first):
            self._whole.add(call.site)
        elif call.part_of and call.part_of != call.site and call.part_of not in self._whole:
            other = self._sites.get(call.part_of)
            if other is None or other.units == shape[dim]:
                return call._replace(site=call.part_of)
        return call

    def _is_one_example(self, shape: torch.Size, dim: int) -> bool:
        """Whether it has no dimension of examples: the units come first, and no other is as long as the batch."""
        return dim == 0 and self._batch.counted > 1 and self._batch.counted not in shape[1:]

    def _start(self, site: str, output: Tensor) -> float:
        """How many examples came before this call's; NaN where its first dimension does not hold examples."""
        again = site in self._called
        self._called.add(site)
        return math.nan if again or output.shape[0] != self._batch.counted else self._examples

    def take(self) -> WindowCounts:
        """Fetch everything from the device at once, and start a new window."""
        window = WindowCounts(self._examples)
        with torch.inference_mode():  # as the batches may have been in
            all_totals = _totals_of(self._sites.values(), self._flags)
            parts = [part for totals in all_totals for part in (totals.active.counts(), totals.active.finite())]
            sums = fetched(parts, torch.int64)
        counts = dict(zip(all_totals, zip(sums[::2], sums[1::2], strict=True), strict=True))
        for name, site in self._sites.items():
            if site.totals is not None:
                active, finite = (part[site.place : site.place + site.units] for part in counts[site.totals])
                broken = np.flatnonzero(finite == 0).tolist()
                window.sites[name] = replace(site.counts, active=active.tolist(), not_a_number=broken)
        with suppress(Exception), np.errstate(all="ignore"):  # the counts are worth more
            window.looks = self._looks({totals: totals.look for totals in all_totals if totals.look is not None})
        self.clear()
        return window

    def _looks(self, of: Mapping[_Totals, UnitLook]) -> dict[str, SiteLook]:
        sites = {
            name: (site.totals, site.feed, range(site.place, site.place + site.units))
            for name, site in self._sites.items()
            if site.totals in of and site.feed is not None
        }
        FeedLook.read(feed for _, feed, _ in sites.values())
        parts = [part for look in of.values() for part in look.packed()]
        parts += [part for _, feed, _ in sites.values() for part in feed.packed()]
        values = iter(fetched(parts, torch.float64))
        units = {totals: look.unpacked([next(values) for _ in range(5)]) for totals, look in of.items()}
        looks, of_feeds = {}, []
        for name, (totals, feed, places) in sites.items():
            assert totals is not None
            first, moments = units[totals]
            mine = {unit: moments[place] for unit, place in enumerate(places) if place in moments}
            looks[name] = SiteLook(mine, first[places.start : places.stop], of[totals].aligned)
            of_feeds.append((feed, looks[name], [next(values) for _ in range(3)]))
        FeedLook.fill(of_feeds)
        return looks
