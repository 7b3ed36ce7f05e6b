"""Count, per unit, how often a ReLU's output is above zero, exact to the last image."""

from math import gcd, prod
from typing import NamedTuple

import torch
from torch import Tensor

# Rows whose 0/1 bytes may be added before a byte could overflow.
_ROWS_PER_WORD_SUM = 255
# Bytes of 0/1 flags written before they are added up: few enough for a chunk to stay in the cores' own caches.
_CHUNK_BYTES = 1 << 19
# Below this many elements the plain reduction is as fast as setting up the byte-lane one.
_SMALL = 1 << 13


class ActivityCounter:
    """Adds up over batches, for one ReLU, the (image, position) pairs with ``output > 0`` of every unit.

    A plain ``(output > 0).sum(...)`` is bound by its slow narrowing compare and its strided sum. On a CPU, dense
    outputs take a faster way that gives the same integers: flags of one byte per element, added eight at a time as
    64-bit words. The words are widened when a byte could overflow, every 255 images, and summed over positions only
    when the counts are asked for. Never waits for a GPU.

    Args:
        units: Number of units.
        device: The outputs'.
    """

    def __init__(self, units: int, device: torch.device) -> None:
        self.units = units
        with torch.inference_mode(False):  # normal tensors outlive inference mode
            self._total = torch.zeros(units, dtype=torch.int64, device=device)
        self._lanes: _ByteLanes | None = None
        self._key: tuple[object, ...] | None = None  # of the outputs that `_layout` describes
        self._layout: _Layout | None = None

    def add(self, output: Tensor, unit_dim: int) -> None:
        """Count one batch.

        Args:
            output: What a ReLU returned, shape ``(N, ...)``, any floating dtype: every element is >= 0 or NaN.
                NaN is not above zero, so it does not count.
            unit_dim: The dimension that holds the units: 1 for ``(N, C, H, W)`` and ``(N, F)``.
        """
        key = (output.shape[1:], output.stride(), unit_dim)
        if key != self._key or output.numel() < _SMALL:
            self._key, self._layout = key, _dense_layout(output, unit_dim)
        layout = self._layout
        if layout is None:
            self._total += _count_plainly(output, unit_dim)
            return
        if self._lanes is None or self._lanes.layout != layout:
            self._empty_lanes()
            self._lanes = _ByteLanes(layout)
        for left in self._lanes.add(output.permute(layout.order).flatten(1)):
            self._total += _count_plainly(output[left], unit_dim)

    def counts(self) -> Tensor:
        """The sums so far: int64, shape ``(units,)``."""
        self._empty_lanes()
        return self._total

    def _empty_lanes(self) -> None:
        if self._lanes is not None:
            self._total += self._lanes.per_unit()
            self._lanes = None


def count_active(output: Tensor, unit_dim: int) -> Tensor:
    """Count one batch alone; see `ActivityCounter.add`."""
    counter = ActivityCounter(output.shape[unit_dim], output.device)
    counter.add(output, unit_dim)
    return counter.counts()


class _Layout(NamedTuple):
    """A batch's dimensions in memory order: (N, H, W, C) for a channels-last tensor, whatever its nominal order."""

    order: tuple[int, ...]
    shape: tuple[int, ...]  # of one image, in that order
    unit: int  # position of the units in `shape`


def _dense_layout(output: Tensor, unit_dim: int) -> _Layout | None:
    """The layout of a CPU tensor whose images lie one after the other without holes; None for others and small ones."""
    if output.device.type != "cpu" or output.numel() < _SMALL:
        return None
    strides = output.stride()
    order = tuple(sorted(range(output.dim()), key=lambda d: (-strides[d], d)))
    if order[0] != 0 or not output.permute(order).is_contiguous():
        return None
    return _Layout(order, tuple(output.shape[d] for d in order[1:]), order.index(unit_dim) - 1)


class _ByteLanes:
    """Counters of one byte per element of an image, eight to a 64-bit word, over up to 255 rows; then wider ones."""

    def __init__(self, layout: _Layout) -> None:
        self.layout = layout
        self.columns = prod(layout.shape)
        # Words need rows of a multiple of eight bytes: take `fold` images as one row where an image is not.
        self.fold = 8 // gcd(self.columns, 8)
        with torch.inference_mode(False):
            self.words = torch.zeros(self.fold * self.columns // 8, dtype=torch.int64)
            self.wide = torch.zeros(self.fold, self.columns, dtype=torch.int64)
        self.pending = 0

    def add(self, images: Tensor) -> list[slice]:
        """Count non-negative ``images`` (N, columns), but for the last few and those near a NaN; returns which."""
        width = self.fold * self.columns
        whole = len(images) // self.fold
        rows = images[: whole * self.fold].view(whole, width)
        left = [slice(whole * self.fold, None)] if whole * self.fold < len(images) else []
        flags = torch.empty(min(whole, max(1, _CHUNK_BYTES // width)), width, dtype=torch.bool)
        start = 0
        while start < whole:
            stop = min(start + len(flags), whole, start + _ROWS_PER_WORD_SUM - self.pending)
            chunk = rows[start:stop]
            marked = flags[: stop - start].copy_(chunk)
            # A flag takes NaN for true. Nothing is negative, so the sum is NaN if and only if an element is. The chunk
            # is still in the cache, and on a CPU there is nothing to wait for.
            if chunk.sum(dtype=torch.float32).isnan():
                left.append(slice(start * self.fold, stop * self.fold))
            else:
                self.words += marked.view(torch.int64).sum(0)
                self.pending += stop - start
                if self.pending == _ROWS_PER_WORD_SUM:
                    self._widen()
            start = stop
        return left

    def per_unit(self) -> Tensor:
        """The sums over images and positions: int64, shape ``(units,)``."""
        self._widen()
        shape, unit = self.layout.shape, self.layout.unit
        per_element = self.wide.sum(0).view(prod(shape[:unit]), shape[unit], prod(shape[unit + 1 :]))
        # Two steps: the reduction over the outer dimension is the vectorised one.
        return per_element.sum(0).sum(1)

    def _widen(self) -> None:
        self.wide += self.words.view(torch.uint8).view(self.fold, self.columns)
        self.words.zero_()
        self.pending = 0


def _count_plainly(output: Tensor, unit_dim: int) -> Tensor:
    others = [d for d in range(output.dim()) if d != unit_dim]
    return (output > 0).sum(dim=others, dtype=torch.int64)
