"""What goes into the ReLUs: per unit the largest pre-activation, mean and spread, and when it first fired.

On a CPU only the units that have not fired so far are looked at, which soon are few; on other devices all of them, so
that the host never waits. For a unit that stays dead all numbers are exact over the whole window.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import add
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from training_health.relu.feeds import Feed, Source, numbers_of, read_each, units_read
from training_health.tensor_statistics import exact_dtype

# Examples of a window's first batch after which the units that have fired are left out; then the rest of them.
_FIRST_LOOKS = (4, 32)
_RANGES = 16  # of a layer's inputs that wait to be joined
_FEW = 1 << 15  # elements that are looked at as a whole

K = TypeVar("K")
V = TypeVar("V")


@dataclass
class Moments:
    """Of one unit's pre-activation, over (example, position) pairs: ``square`` is the sum of squared deviations."""

    pairs: int
    mean: float
    square: float
    top: float

    def __add__(self, other: Moments) -> Moments:
        """Join two windows' (Chan, Golub and LeVeque 1979)."""
        pairs, apart = self.pairs + other.pairs, other.mean - self.mean
        mean = self.mean + apart * other.pairs / pairs
        square = self.square + other.square + apart**2 * self.pairs * other.pairs / pairs
        top = math.nan if math.isnan(self.top + other.top) else max(self.top, other.top)
        return Moments(pairs, mean, square, top)

    @property
    def is_constant(self) -> bool:
        """Whether it never changes, but for rounding."""
        return self.sd <= 1e-6 * abs(self.mean)

    @property
    def sd(self) -> float:
        """The standard deviation."""
        return math.sqrt(self.square / self.pairs) if self.square >= 0 else math.nan


@dataclass
class SiteLook:
    """What one rank saw go into a site; numbers on the host, so that ranks can exchange them.

    Attributes:
        moments: Of the units that did not fire.
        first: Per unit the number of the first example, of this rank's, on which it fired; -1 for none.
        aligned: Whether ``first`` is known.
        low: The smallest input of the layer before the site; NaN where it is not known.
        high: The largest.
        numbers: `feeds.NUMBERS` of that layer, a row of (U,) each; no row where it could not be followed.
        source: The site, with its qualified name, that the layer's inputs come out of.
        reads: For units whose pre-activation is constant, the units of ``source`` that have a weight other than 0.
    """

    moments: dict[int, Moments] = field(default_factory=dict)
    first: list[int] = field(default_factory=list)
    aligned: bool = True
    low: float = math.nan
    high: float = math.nan
    numbers: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    source: Source | None = None
    reads: dict[int, list[int]] = field(default_factory=dict)


class UnitLook:
    """Adds up what a `SiteLook` says of units, on the device and without waiting for it."""

    def __init__(self, units: int, device: torch.device) -> None:
        self.units, self._on_cpu = units, device.type == "cpu"
        self._exact = exact_dtype(device)
        # On a CPU, the units that have not fired; None before the first batch. Elsewhere all units are looked at.
        self.candidates: Tensor | None = None
        self.aligned, self._pairs = True, 0
        self._first = torch.full((units,), -1, dtype=torch.int64, device=device)
        # Of the candidates, or of all units: sums are taken about the first value.
        self._shift = self._sums = self._squares = self._tops = torch.empty(0)

    @property
    def goes_on(self) -> bool:
        """Whether any unit may still turn out to be dead."""
        return self.candidates is None or len(self.candidates) > 0

    def narrow(self, values: Tensor, dim: int, start: float) -> None:
        """On a CPU, leave out the units that fire in a few of the first batch's examples; arguments as of `add`."""
        if not self._on_cpu or self.candidates is not None:
            return
        self.candidates, first = torch.arange(self.units), 0 if math.isnan(start) else int(start)
        for count in _FIRST_LOOKS:
            if dim and count < len(values) and values.numel() > _FEW and self.goes_on:
                rows = rows_of(values[:count], dim, self.candidates)
                self.candidates = self.candidates[~self._note_fired(rows, count, first)]

    def add(self, rows: Tensor | None, values: Tensor, dim: int, start: float) -> None:
        """Take one call's pre-activations.

        Args:
            rows: On a CPU the candidates' values, (candidates, pairs), example by example; None elsewhere.
            values: All of them, (N, ...).
            dim: The dimension that holds the units.
            start: How many examples came before these; NaN where the first dimension does not hold examples.
        """
        self.aligned &= not math.isnan(start) and dim != 0
        first, examples = int(start) if self.aligned else 0, values.shape[0] if dim else 1
        if rows is None:
            self._add_all(values.detach(), dim, first, examples)
        elif len(rows):
            left = (~self._note_fired(rows, examples, first)).nonzero().flatten()
            if len(left) < len(rows):
                assert self.candidates is not None
                # A mask as index starts torch's threads for a few thousand elements, which takes longer than the rest.
                self.candidates, rows = self.candidates[left], rows.index_select(0, left)
                if self._pairs:
                    kept = (part[left] for part in (self._shift, self._sums, self._squares, self._tops))
                    self._shift, self._sums, self._squares, self._tops = kept
            if len(rows):
                self._add_rows(rows)
        self._pairs += values.numel() // self.units

    def _note_fired(self, rows: Tensor, examples: int, start: int) -> Tensor:
        """Note on which example each candidate fired first; returns which of them did."""
        fired = rows.amax(1) > 0
        which = fired.nonzero().flatten()
        if len(which):
            assert self.candidates is not None
            chosen = rows.index_select(0, which)
            by_example = chosen.reshape(-1, examples, rows.shape[1] // examples).amax(2)
            self._first[self.candidates[which]] = start + (by_example > 0).int().argmax(1)
        return fired

    def _add_rows(self, rows: Tensor) -> None:
        if not self._pairs:
            zeros = torch.zeros(len(rows), dtype=self._exact)
            self._shift, self._sums, self._squares = rows[:, 0].clone(), zeros, zeros
            self._tops = rows[:, 0].clone()
        self._tops = torch.maximum(self._tops, rows.amax(1))
        apart = rows - self._shift[:, None]
        self._sums = self._sums + apart.sum(1)
        self._squares = self._squares + torch.linalg.vector_norm(apart, dim=1).to(self._exact).square()

    def _add_all(self, values: Tensor, dim: int, start: int, examples: int) -> None:
        by_unit = values.movedim(dim, 1) if dim else values.flatten(1)[None]
        by_unit = by_unit.reshape(examples, self.units, -1)
        by_unit = by_unit.to(torch.promote_types(by_unit.dtype, torch.float32))
        by_example = by_unit.amax(2)
        fired = by_example > 0
        first = torch.where(fired.any(0), fired.int().argmax(0) + start, -1)
        self._first = torch.where(self._first < 0, first, self._first)
        tops = by_example.amax(0)
        if not self._pairs:
            self._shift, self._tops = by_unit[0, :, 0].clone(), tops
            self._sums = self._squares = torch.zeros_like(tops, dtype=self._exact)
        self._tops = torch.maximum(self._tops, tops)
        apart = by_unit - self._shift[:, None]
        self._sums = self._sums + apart.sum((0, 2), dtype=self._exact)
        self._squares = self._squares + torch.linalg.vector_norm(apart, dim=(0, 2), dtype=self._exact).square()

    def packed(self) -> list[Tensor]:
        """All that is on the device, to be fetched at once."""
        return [self._first, self._shift, self._sums, self._squares, self._tops]

    def unpacked(self, parts: Sequence[np.ndarray]) -> tuple[list[int], dict[int, Moments]]:
        """Make plain numbers of what `packed` gave: as ``first`` and ``moments`` of a `SiteLook`."""
        first, shift, sums, squares, tops = parts
        units = np.arange(self.units) if self.candidates is None else self.candidates.numpy()
        silent = np.flatnonzero(first[units] < 0) if self._pairs else np.empty(0, int)
        mean = sums[silent] / max(self._pairs, 1)
        square = np.maximum(squares[silent] - mean * sums[silent], 0)
        rows = zip((shift[silent] + mean).tolist(), square.tolist(), tops[silent].tolist(), strict=True)
        moments = (Moments(self._pairs, *row) for row in rows)
        return first.astype(int).tolist(), dict(zip(units[silent].tolist(), moments, strict=True))


class FeedLook:
    """Adds up what a `SiteLook` says of the layer before a site, on the device and without waiting for it."""

    def __init__(self) -> None:
        self._feed: Feed | None = None
        self._copy: Feed | None = None  # of a small layer, as it was in the first call
        self._is_followed = True  # the layer was found in all calls, and its numbers could be read
        self._read = torch.empty(0)
        self._lows: list[Tensor] = []
        self._highs: list[Tensor] = []
        self._ranged = True

    def add(self, feed: Feed | None, goes_on: bool) -> None:
        """Take one call; the range of its inputs may be missing where the look at the units does not go on."""
        self._is_followed &= feed is not None
        if feed is None or not self._is_followed:
            return
        if feed.low is None or feed.high is None:
            self._ranged &= not goes_on
        else:
            self._lows.append(feed.low)
            self._highs.append(feed.high)
            if len(self._lows) == _RANGES:
                self._lows, self._highs = [torch.stack(self._lows).amin()], [torch.stack(self._highs).amax()]
        if self._feed is None:  # others may have other weights there, or none, as soon as this call is over
            if feed.is_small:
                self._copy = feed.copied()
            else:
                self._take(*read_each([feed]))
        self._feed = feed

    def _take(self, read: Tensor | None) -> None:
        self._is_followed &= read is not None
        self._read = torch.empty(0) if read is None else read

    @staticmethod
    def read(looks: Iterable[FeedLook]) -> None:
        """Read the numbers of the small layers, all together."""
        copies = [(look, look._copy) for look in looks if look._copy is not None]
        for (look, _), read in zip(copies, read_each([copy for _, copy in copies]), strict=True):
            look._take(read)

    def packed(self) -> list[Tensor]:
        """All that is on the device, to be fetched at once."""
        ranged = self._is_followed and self._ranged and self._lows
        read = self._read if self._is_followed else torch.empty(0)
        return [read, *(torch.stack(part) if ranged else torch.empty(0) for part in (self._lows, self._highs))]

    @staticmethod
    def fill(looks: Sequence[tuple[FeedLook, SiteLook, Sequence[np.ndarray]]]) -> None:
        """Say of layers what `packed` gave, in looks that say all of the units."""
        alike = defaultdict[int, list[tuple[SiteLook, np.ndarray]]](list)
        for own, look, (read, lows, highs) in looks:
            feed = own._feed
            if feed is None or not own._is_followed:
                continue
            alike[len(own._read)].append((look, read.reshape(own._read.shape)))
            look.source = feed.source
            if len(lows):
                look.low, look.high = float(lows.min()), float(highs.max())
            units = [unit for unit, of in look.moments.items() if of.is_constant] if feed.source is not None else []
            if units:
                look.reads = own._units_read(units, read)
        for some in alike.values():
            numbers, end = numbers_of(np.concatenate([read for _, read in some], axis=1)), 0
            for look, read in some:
                look.numbers, end = numbers[:, end : end + read.shape[1]], end + read.shape[1]

    def _units_read(self, units: Sequence[int], read: np.ndarray) -> dict[int, list[int]]:
        assert self._feed is not None
        if self._copy is not None:
            return units_read(self._copy._replace(source=self._feed.source), units)
        now = fetched([part for part in read_each([self._feed]) if part is not None], torch.float64)
        # Else another callback has put other weights there.
        same = len(now) == 1 and np.array_equal(read, now[0], equal_nan=True)
        return units_read(self._feed, units) if same else {}


def fetched(parts: Sequence[Tensor], dtype: torch.dtype) -> list[np.ndarray]:
    """Everything from the device in one transfer, each tensor as a vector."""
    if not parts:
        return []
    if any(part.device.type == "mps" for part in parts) and dtype == torch.float64:
        dtype = torch.float32  # it has no double precision
    whole = torch.cat([part.flatten().to(parts[0].device, dtype) for part in parts]).cpu().numpy()
    ends = accumulate(part.numel() for part in parts)
    return [whole[end - part.numel() : end] for part, end in zip(parts, ends, strict=True)]


def rows_of(values: Tensor, dim: int, units: Tensor) -> Tensor:
    """Some units' values, at least in single precision: (units, pairs), example by example if these come first."""
    rows = values.movedim(dim, 0).index_select(0, units).flatten(1)
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def summed(parts: Iterable[Mapping[K, V]]) -> dict[K, V]:
    """Add up what several ranks have, key by key; each counts with the ranks that have it."""
    total: dict[K, V] = {}
    for key, value in ((key, value) for part in parts for key, value in part.items()):
        total[key] = add(total[key], value) if key in total else value
    return total
