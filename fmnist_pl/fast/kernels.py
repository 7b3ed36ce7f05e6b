# ruff: noqa: ANN001, ANN201, ANN202
# mypy: ignore-errors
"""Numba kernels of the training step on a CPU; importing this module compiles them or loads them from Numba's cache.

Activations are (N, H, W, C), C-contiguous. The kernels go position by position, so that what lies between a convolution
and its pooled, dropped result stays in the first-level cache. A row is a position (n, i, j) of the result, a lane one
of its channels. The batch is cut into `GROUPS` parts whatever the number of threads, each with its own sums of
gradients, and dropout's bits are a hash of (key, row, lane): no result depends on the number of threads. (Those of
torch's own convolutions and matrix products may, in their last bits.)
"""

import sys
import time

import numpy as np
from llvmlite import ir
from numba import config, njit, prange, set_num_threads, threading_layer, types
from numba.extending import intrinsic, models, register_model

GROUPS = 16
LANES = 16  # in a vector; LLVM splits it where the processor's are shorter
LEAKY, LOST = np.int32(4), np.int32(8)  # codes, see `_pool`

_OPTIONS = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
_LOOPS = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")
_PARALLEL = {"parallel": {**dict.fromkeys(_LOOPS, False), "prange": True}, **_OPTIONS}  # prange alone compiles faster
_VECTOR, _WORD = ir.VectorType(ir.FloatType(), LANES), ir.IntType(32)
# omp is torch's own libgomp: one team of threads, no second one to wake while torch's still spins, and safe to call
# from several threads at once (workqueue is not).
config.THREADING_LAYER = "omp"
set_num_threads(1)  # starts the layer: ValueError if there is none, as on macOS without libomp
if threading_layer() != "omp":
    raise ImportError("Numba runs on another threading layer already.")
_inlined = njit(forceinline=True, **_OPTIONS)
_start = time.monotonic()


def use_threads(count):
    """Let the kernels that this thread calls run on ``count`` threads, as far as there are processors."""
    set_num_threads(min(count, config.NUMBA_NUM_THREADS))


def _kernel(signature):
    def compiled(function):
        try:
            return njit(signature, cache=True, **_PARALLEL)(function)
        except (RuntimeError, OSError):  # no folder that the cache could be written to
            return njit(signature, **_PARALLEL)(function)

    return compiled


class _Vector(types.Type):
    """`LANES` floats in a register; LLVM's own vectorisation would write the sums to memory after every tap."""


register_model(_Vector)(lambda manager, kind: models.PrimitiveModel(manager, kind, _VECTOR))


def _pointer(context, builder, kind, array, index, vector=True):
    pointer = builder.gep(context.make_array(kind)(context, builder, array).data, [index])
    return builder.bitcast(pointer, _VECTOR.as_pointer()) if vector else pointer


@intrinsic
def _load(typing, array, index):
    """``array[index : index + LANES]``."""

    def build(context, builder, signature, values):
        return builder.load(_pointer(context, builder, signature.args[0], *values), align=4)

    return _Vector("Vector")(array, index), build


@intrinsic
def _store(typing, vector, array, index):
    """``array[index : index + LANES] = vector``."""

    def build(context, builder, signature, values):
        builder.store(values[0], _pointer(context, builder, signature.args[1], *values[1:]), align=4)
        return context.get_dummy_value()

    return types.none(vector, array, index), build


@intrinsic
def _add_product(typing, total, array, index, vector):
    """``total + array[index] * vector``."""

    def build(context, builder, signature, values):
        scalar = builder.load(_pointer(context, builder, signature.args[1], *values[1:3], vector=False))
        first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, _WORD(0))
        factor = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_WORD, LANES), None))
        return builder.fadd(values[0], builder.fmul(factor, values[3], ("contract",)), flags=("contract",))

    return vector(total, array, index, vector), build


@intrinsic
def _random_word(typing, low, high, lane):
    """A hash in 32-bit arithmetic; Numba's own would be of 64 bits, at half the speed."""

    def build(context, builder, signature, values):
        low, high, lane = values
        x = builder.xor(low, builder.mul(builder.trunc(lane, _WORD), _WORD(0x9E3779B1)))
        x = builder.mul(builder.xor(x, builder.lshr(x, _WORD(16))), _WORD(0x21F0AAAD))
        return builder.mul(builder.xor(builder.xor(x, builder.lshr(x, _WORD(15))), high), _WORD(0xD35A2D97))

    return types.uint32(types.uint32, types.uint32, types.int64), build


@_inlined
def _fill_mask(mask, key, row, dropped, scale):
    """Put 0 with probability ``dropped`` / 2**32, else ``scale``, in each lane. SplitMix64 hashes key and row."""
    z = np.uint64(key) + np.uint64(row + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    low, high, limit = np.uint32(z), np.uint32(z >> np.uint64(32)), np.uint32(dropped)
    for lane in range(len(mask)):
        mask[lane] = scale if _random_word(low, high, lane) >= limit else np.float32(0)


@_inlined
def _pool(v0, v1, v2, v3, mask, slope, out, code):
    """Maximum, activation and dropout of four rows.

    The code says where the gradient goes: the position of the first maximum, + LEAKY where that is not positive; LOST
    where it was dropped or ReLU stopped it.
    """
    negative = LOST if slope == 0 else LEAKY
    for lane in range(len(out)):
        a, b, c, d, keep = v0[lane], v1[lane], v2[lane], v3[lane], mask[lane]
        upper, lower = (a if a > b else b), (c if c > d else d)
        best = upper if upper > lower else lower
        at = np.int32(0) if best == a else np.int32(1) if best == b else np.int32(2) if best == c else np.int32(3)
        if a != a or b != b or c != c or d != d:
            best = np.float32(np.nan)
        at = np.int32(at | (negative if best <= 0 else np.int32(0)))
        at = LOST if keep == 0 else at
        best = best * slope if best <= 0 else best
        out[lane] = best * keep if at < LOST else np.float32(0)
        code[lane] = at


@_inlined
def _unpool(grad, code, scale, slope, v0, v1, v2, v3):
    """The gradient of `_pool` for each of its four rows."""
    zero, low = np.float32(0), scale * slope
    for lane in range(len(grad)):
        at, g = np.int32(code[lane]), grad[lane]
        g = g * scale if at < LEAKY else g * low if at < LOST else zero
        at = np.int32(at & 3)
        v0[lane] = g if at == 0 else zero
        v1[lane] = g if at == 1 else zero
        v2[lane] = g if at == 2 else zero
        v3[lane] = g if at == 3 else zero


@_inlined
def _convolve(image, corner, width, taps, weight, v):
    """Four convolutions, at the positions of a pool whose upper left pixel is ``corner``, into the rows of v."""
    for lane in range(0, v.shape[1], LANES):
        s0 = s1 = s2 = s3 = _load(weight[len(taps)], lane)  # the bias
        for tap in range(len(taps)):
            at, row = corner + taps[tap], _load(weight[tap], lane)
            s0, s1 = _add_product(s0, image, at, row), _add_product(s1, image, at + 1, row)
            s2, s3 = _add_product(s2, image, at + width, row), _add_product(s3, image, at + width + 1, row)
        _store(s0, v[0], lane)
        _store(s1, v[1], lane)
        _store(s2, v[2], lane)
        _store(s3, v[3], lane)


@_inlined
def _add_gradient(image, corner, width, taps, v, total):
    """Add the gradient of `_convolve`'s weight, where v is that of its result."""
    for lane in range(v.shape[1]):
        total[len(taps), lane] += v[0, lane] + v[1, lane] + v[2, lane] + v[3, lane]
    for lane in range(0, v.shape[1], LANES):
        g0, g1, g2, g3 = _load(v[0], lane), _load(v[1], lane), _load(v[2], lane), _load(v[3], lane)
        for tap in range(len(taps)):
            at = corner + taps[tap]
            s = _add_product(_add_product(_load(total[tap], lane), image, at, g0), image, at + 1, g1)
            s = _add_product(_add_product(s, image, at + width, g2), image, at + width + 1, g3)
            _store(s, total[tap], lane)


@_kernel("void(f4[:, :, :, ::1], i8[::1], f4[:, ::1], f8, i8, i8, f8, f4[:, :, :, ::1], u1[:, :, :, ::1])")
def forward(x, taps, weight, slope, key, dropped, scale, out, code):
    """`_pool` of x, or where there are taps, of the convolution of its only channel."""
    for group in prange(GROUPS):
        mask, v = np.full(out.shape[3], np.float32(scale)), np.empty((4, out.shape[3]), np.float32)
        for n in range(len(x) * group // GROUPS, len(x) * (group + 1) // GROUPS):
            image = x[n].reshape(-1)
            for i in range(out.shape[1]):
                for j in range(out.shape[2]):
                    if dropped > 0:
                        row = (n * out.shape[1] + i) * out.shape[2] + j
                        _fill_mask(mask, key, row, dropped, np.float32(scale))
                    if len(taps) > 0:
                        corner = 2 * i * x.shape[2] + 2 * j
                        _convolve(image, corner, x.shape[2], taps, weight, v)
                        _pool(v[0], v[1], v[2], v[3], mask, np.float32(slope), out[n, i, j], code[n, i, j])
                    else:
                        up, low, k, s = x[n, 2 * i], x[n, 2 * i + 1], 2 * j, np.float32(slope)
                        _pool(up[k], up[k + 1], low[k], low[k + 1], mask, s, out[n, i, j], code[n, i, j])


@_kernel("void(f4[:, :, :, ::1], u1[:, :, :, ::1], f4[:, :, :, ::1], i8[::1], f8, f8, f4[:, :, ::1], f4[:, :, :, ::1])")
def backward(grad, code, x, taps, slope, scale, totals, out):
    """The gradient of `forward` by x, into ``out``, or where there are taps by ``weight``, added into ``totals``."""
    for group in prange(GROUPS):
        v = np.empty((4, grad.shape[3]), np.float32)
        for n in range(len(x) * group // GROUPS, len(x) * (group + 1) // GROUPS):
            image = x[n].reshape(-1)
            for i in range(grad.shape[1]):
                for j in range(grad.shape[2]):
                    row, codes, factor, s = grad[n, i, j], code[n, i, j], np.float32(scale), np.float32(slope)
                    if len(taps) > 0:
                        _unpool(row, codes, factor, s, v[0], v[1], v[2], v[3])
                        corner = 2 * i * x.shape[2] + 2 * j
                        _add_gradient(image, corner, x.shape[2], taps, v, totals[group])
                    else:
                        up, low, k = out[n, 2 * i], out[n, 2 * i + 1], 2 * j
                        _unpool(row, codes, factor, s, up[k], up[k + 1], low[k], low[k + 1])


@_kernel("void(i8, i8, f8, f4[:, ::1])")
def dropout_mask(key, dropped, scale, out):
    """`_fill_mask` of all rows."""
    for group in prange(GROUPS):
        for row in range(len(out) * group // GROUPS, len(out) * (group + 1) // GROUPS):
            _fill_mask(out[row], key, row, dropped, np.float32(scale))


if forward.stats.cache_misses:
    print(f"Compiled the CPU kernels, once: {time.monotonic() - _start:.0f} s.", file=sys.stderr)
