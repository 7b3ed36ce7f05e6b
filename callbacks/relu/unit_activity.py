"""Count, per unit, how often a ReLU's output is above zero: pure functions, exact to the last image."""

from math import gcd, prod

import torch
from torch import Tensor

# Rows whose 0/1 bytes may be added before a byte could overflow.
_ROWS_PER_WORD_SUM = 255
# Bytes of 0/1 flags written before they are added up: small enough to stay in a core's own cache.
_CHUNK_BYTES = 1 << 20
# Below this many elements the plain reduction is as fast as setting up the byte-lane one.
_SMALL = 1 << 15


def count_active(output: Tensor, unit_dim: int) -> Tensor:
    """Count the (image, position) pairs with ``output > 0`` for every unit.

    A plain ``(output > 0).sum(...)`` is bound by its slow narrowing compare and its strided sum. On a CPU, dense
    outputs take a faster way that gives the same integers: flags of one byte per element, added eight at a time as
    64-bit words, at most 255 rows before they are widened.

    Args:
        output: What a ReLU returned, shape ``(N, ...)``, any floating dtype: every element is >= 0 or NaN.
            NaN is not above zero, so it does not count.
        unit_dim: The dimension that holds the units: 1 for ``(N, C, H, W)`` and ``(N, F)``.

    Returns:
        int64 counts of shape ``(units,)`` on ``output``'s device. Never waits for a GPU.
    """
    if output.device.type != "cpu" or output.numel() < _SMALL:
        return _count_plainly(output, unit_dim)
    # Dimensions in memory order: (N, H, W, C) for a channels-last tensor, whatever its nominal order.
    strides = output.stride()
    order = sorted(range(output.dim()), key=lambda d: (-strides[d], d))
    rows = output.permute(order)
    if order[0] != 0 or not rows.is_contiguous():
        return _count_plainly(output, unit_dim)
    per_element = _count_over_images(rows.flatten(1))
    if per_element is None:  # a NaN
        return _count_plainly(output, unit_dim)
    shape = [output.shape[d] for d in order[1:]]
    unit = order.index(unit_dim) - 1
    before, units, after = prod(shape[:unit]), shape[unit], prod(shape[unit + 1 :])
    per_element = per_element.view(before, units, after)
    # Two steps: the reduction over the outer dimension is the vectorised one.
    return per_element.sum(0).sum(1) if after > 1 else per_element.sum(0).flatten()


def _count_plainly(output: Tensor, unit_dim: int) -> Tensor:
    others = [d for d in range(output.dim()) if d != unit_dim]
    return (output > 0).sum(dim=others, dtype=torch.int64)


def _count_over_images(rows: Tensor) -> Tensor | None:
    """Count elements above zero in each column of non-negative ``rows`` (N, K): int64 (K,), or None with any NaN."""
    images, columns = rows.shape
    # Words need rows of a multiple of eight bytes: take `fold` images as one row where K is not.
    fold = 8 // gcd(columns, 8)
    whole = images // fold
    flags = torch.empty(min(whole, max(1, _CHUNK_BYTES // (fold * columns))) * fold, columns, dtype=torch.bool)
    counts = torch.zeros(fold, columns, dtype=torch.int64)
    words = torch.zeros(fold * columns // 8, dtype=torch.int64)
    total = rows.new_zeros((), dtype=torch.float32)
    pending = 0
    start = 0
    while start < whole:
        step = min(len(flags) // fold, whole - start, _ROWS_PER_WORD_SUM - pending)
        chunk = rows[start * fold : (start + step) * fold]
        total += chunk.sum(
            dtype=torch.float32
        )  # NaN here if and only if there is one in the chunk: nothing is negative
        bytes_ = flags[: step * fold].copy_(chunk)
        words += bytes_.view(step, fold * columns).view(torch.int64).sum(0)
        start += step
        pending += step
        if pending == _ROWS_PER_WORD_SUM:
            counts += words.view(torch.uint8).view(fold, columns)
            words.zero_()
            pending = 0
    counts += words.view(torch.uint8).view(fold, columns)
    rest = rows[whole * fold :]
    total += rest.sum(dtype=torch.float32)
    if total.isnan():  # on the CPU: nothing to wait for
        return None
    return counts.sum(0) + (rest > 0).sum(0)
