"""Count, per unit, how often a ReLU's output is above zero, exact to the last example."""

from math import gcd, inf, isfinite, prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training_health.relu.pre_activations import rows_of

# Rows whose 0/1 bytes may be added before a byte could overflow.
_ROWS_PER_WORD_SUM = 255
# Bytes of 0/1 flags written before they are added up: few enough to stay in a core's own cache.
_CHUNK_BYTES = 1 << 17
# Longest row that is looked for: the counters of a row should stay in a core's first-level cache.
_ROW_BYTES = 1 << 13
# Below this many elements the plain reduction is as fast as setting up the byte-lane one.
_SMALL = 1 << 13


class ActivityCounter:
    """Adds up over batches, for one ReLU, the (example, position) pairs with ``output > 0`` of every unit.

    A plain ``(output > 0).sum(...)`` is bound by its slow narrowing compare and its strided sum. On a CPU, dense
    outputs take a faster way that gives the same integers: NumPy, whose compare is vectorised, writes flags of one byte
    per element, which are added eight at a time as 64-bit words. The words are widened when a byte could overflow,
    every 255 rows, and summed over positions only when the counts are asked for. Never waits for a GPU.

    Args:
        units: Number of units.
        device: The outputs'.
        flags: Shared by counters of one thread.
    """

    def __init__(self, units: int, device: torch.device, flags: "FlagBuffer") -> None:
        self.units, self._flags = units, flags
        with torch.inference_mode(False):  # normal tensors outlive inference mode
            self._total = torch.zeros(units, dtype=torch.int64, device=device)
            self._finite = torch.ones(units, dtype=torch.bool, device=device)
        self._lanes: _ByteLanes | None = None

    def add(self, output: Tensor, unit_dim: int, picks: Tensor | None = None) -> Tensor | None:
        """Count one batch.

        Args:
            output: What goes into a ReLU or comes out of it, shape ``(N, ...)``, any floating dtype. NaN is not above
                zero, so it does not count; its unit is none of the `finite` ones from then on.
            unit_dim: The dimension that holds the units: 1 for ``(N, C, H, W)`` and ``(N, F)``.
            picks: Units whose values are wanted.

        Returns:
            The values of ``picks``, (units, pairs), example by example where the first dimension holds these.
        """
        layout = _dense_layout(output, unit_dim)
        picked = None if picks is None else _Picked(picks, output, layout)
        self._count(output, unit_dim, layout, picked)
        if picks is None or picked is None:
            return None
        return rows_of(output, unit_dim, picks) if picked.values is None else torch.from_numpy(picked.values)

    def _count(self, output: Tensor, unit_dim: int, layout: "_Layout | None", picked: "_Picked | None") -> None:
        if layout is None:
            self._total += _count_plainly(output, unit_dim)
            # To read one number from a CPU costs less than a check of each unit; a GPU would have to be waited for.
            wide = torch.promote_types(output.dtype, torch.float32)
            if output.device.type != "cpu" or not isfinite(float(output.sum(dtype=wide))):
                self._check_finite(output, unit_dim)
            return
        if self._lanes is None or self._lanes.layout != layout:
            self._empty_lanes()
            self._lanes = _ByteLanes(layout, self._flags)
        counted, finite = self._lanes.add(output.permute(layout.order), picked)
        if counted < len(output):
            self._total += _count_plainly(output[counted:], unit_dim)
        if counted < len(output) or not finite:
            self._check_finite(output if not finite else output[counted:], unit_dim)

    def counts(self) -> Tensor:
        """The sums so far: int64, shape ``(units,)``."""
        self._empty_lanes()
        return self._total

    def finite(self) -> Tensor:
        """Which units have given finite numbers only: bool, shape ``(units,)``."""
        return self._finite

    def _check_finite(self, output: Tensor, unit_dim: int) -> None:
        others = [d for d in range(output.dim()) if d != unit_dim]
        self._finite &= output.amax(dim=others) < inf  # NaN is the maximum of anything with a NaN

    def _empty_lanes(self) -> None:
        if self._lanes is not None:
            self._total += self._lanes.per_unit()
            self._lanes = None


class FlagBuffer:
    """Room for 0/1 flags, made once: made per batch it is page-faulted, per epoch it splits larger free blocks."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, dtype=np.bool_)

    def rows(self, columns: int) -> np.ndarray:
        """Flags of shape ``(rows, columns)``, at least one row and so many as are quickest; their content is lost."""
        count = min(_ROWS_PER_WORD_SUM, max(1, _CHUNK_BYTES // columns))
        if self._bytes.size < count * columns:
            self._bytes = np.empty(max(count * columns, _CHUNK_BYTES), dtype=np.bool_)
        return self._bytes[: count * columns].reshape(count, columns)


class _Layout(NamedTuple):
    """A batch's dimensions in memory order: (N, H, W, C) for a channels-last tensor, whatever its nominal order."""

    order: tuple[int, ...]
    shape: tuple[int, ...]  # of one example, in that order
    unit: int  # position of the units in `shape`


def _dense_layout(output: Tensor, unit_dim: int) -> _Layout | None:
    """The layout of a CPU tensor whose examples lie dense, one after the other; None for others and small ones."""
    if output.device.type != "cpu" or output.numel() < _SMALL:
        return None
    strides = output.stride()
    order = tuple(sorted(range(output.dim()), key=lambda d: (-strides[d], d)))
    if order[0] != 0 or unit_dim == 0 or not output.permute(order).is_contiguous():
        return None
    return _Layout(order, tuple(output.shape[d] for d in order[1:]), order.index(unit_dim) - 1)


class _Picked:
    """Room for the values of some units where these lie innermost, to be taken while a chunk is in the cache.

    A pass of its own would read all units' memory once more.
    """

    def __init__(self, units: Tensor, output: Tensor, layout: _Layout | None) -> None:
        self.units, self.values = units.tolist(), None
        innermost = layout is not None and layout.unit == len(layout.shape) - 1 > 0
        if innermost and self.units and output.dtype in (torch.float32, torch.float64):
            self.width = output.shape[layout.order[-1]]  # type: ignore[union-attr]
            self.values = np.empty((len(units), output.numel() // self.width), output[:0].numpy().dtype)

    def take(self, chunk: np.ndarray, start: int) -> None:
        """Take a chunk's, which begins with element number ``start`` of all."""
        if self.values is not None:
            rows, place = chunk.reshape(-1, self.width), start // self.width
            for row, unit in zip(self.values, self.units, strict=True):
                row[place : place + len(rows)] = rows[:, unit]


class _ByteLanes:
    """Counters of one byte per element of a row, eight to a 64-bit word, over up to 255 rows; then wider ones.

    A row is a run of an example's memory that holds every unit equally often, so that rows can be added up: a whole
    example, or with the units innermost some of its positions.
    """

    def __init__(self, layout: _Layout, flags: FlagBuffer) -> None:
        self.layout, self.flags = layout, flags
        before = prod(layout.shape[: layout.unit])  # positions that lie one after the other, each with all units
        elements = prod(layout.shape)
        # Words need rows of a multiple of eight bytes: take `fold` examples as one where an example is not.
        self.fold = 8 // gcd(elements, 8)
        self.columns = self.fold * elements
        if self.fold == 1:
            sizes = [elements // parts for parts in range(1, before + 1) if before % parts == 0]
            sizes = [size for size in sizes if size % 8 == 0]
            self.columns = next((size for size in sizes if size <= _ROW_BYTES), sizes[-1])
        self.words = np.zeros(self.columns // 8, dtype=np.uint64)
        self.sums = np.empty_like(self.words)
        self.wide = np.zeros(self.columns, dtype=np.int64)
        self.pending = 0  # rows in `words`

    def add(self, examples: Tensor, picked: _Picked | None = None) -> tuple[int, bool]:
        """Count the examples (N, ...), dense and in memory order; a rest that fills no row is left.

        Returns how many were counted, and whether none of them is NaN or above all numbers.
        """
        counted = len(examples) // self.fold * self.fold
        if picked is not None and counted < len(examples):
            picked.values = None
        rows = examples[:counted].reshape(-1, self.columns)
        values = (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy()  # NumPy knows no bfloat16
        flags = self.flags.rows(self.columns)
        length, words, maxima = len(flags), flags.view(np.uint64), 0.0
        for start in range(0, len(values), length):
            chunk = values[start : start + length]
            if self.pending + len(chunk) > _ROWS_PER_WORD_SUM:
                self._widen()
            np.greater(chunk, 0, out=flags[: len(chunk)])
            self.words += np.add.reduce(words[: len(chunk)], axis=0, out=self.sums)
            self.pending += len(chunk)
            with np.errstate(all="ignore"):
                maxima += float(np.maximum.reduce(chunk, axis=None))  # while the chunk is in the cache
            if picked is not None:
                picked.take(chunk, start * self.columns)
        return counted, isfinite(maxima)

    def per_unit(self) -> Tensor:
        """The sums over examples and positions: int64, shape ``(units,)``."""
        self._widen()
        shape, unit = self.layout.shape, self.layout.unit
        per_element = torch.from_numpy(self.wide).view(-1, shape[unit], prod(shape[unit + 1 :]))
        # Two steps: the reduction over the outer dimension is the vectorised one.
        return per_element.sum(0).sum(1)

    def _widen(self) -> None:
        self.wide += self.words.view(np.uint8)
        self.words.fill(0)
        self.pending = 0


def _count_plainly(output: Tensor, unit_dim: int) -> Tensor:
    others = [d for d in range(output.dim()) if d != unit_dim]
    return (output > 0).sum(dim=others, dtype=torch.int64)
