# ruff: noqa: ANN001, ANN002, ANN201, ANN202
# mypy: ignore-errors
"""Numba kernels of the training step on a CPU; the first call compiles them or loads them from Numba's cache.

Activations are (N, H, W, C), C-contiguous. The kernels go position by position, so that what lies between a convolution
and its pooled, dropped result stays in the first-level cache. A row is a position (n, i, j) of the result, a lane one
of its channels. Dropout's bits are a hash of (key, row, lane), and gradients are summed in `GROUPS` parts of the batch:
no result depends on the number of threads. (Those of torch's own convolutions and matrix products may, in their last
bits.)
"""

import sys
from pickle import UnpicklingError

import numpy as np
import torch
from llvmlite import ir
from numba import config, njit, prange, set_num_threads, threading_layer, types
from numba.core import event
from numba.extending import intrinsic, models, register_model

GROUPS = 16
LANES = 16  # in a vector; LLVM splits it where the processor's are shorter
LEAKY, LOST = np.int32(4), np.int32(8)  # codes, see `_pool`

_OPTIONS = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
_LOOPS = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")
_PARALLEL = {"parallel": {**dict.fromkeys(_LOOPS, False), "prange": True}, **_OPTIONS}  # prange alone compiles faster
# omp is torch's own libgomp: one team of threads, no second one to wake while torch's still spins, and safe to call
# from several threads at once (workqueue is not).
config.THREADING_LAYER = "omp"
set_num_threads(1)  # starts the layer: ValueError if there is none, as on macOS without libomp
if threading_layer() != "omp" or config.DISABLE_JIT:
    raise ImportError("Numba runs on another threading layer already, or is to compile nothing.")
_inlined = njit(forceinline=True, **_OPTIONS)


class _Notice(event.Listener):
    """Says that compiling takes a while, before a function of this module is compiled: not loaded from the cache."""

    def on_start(self, started):
        if started.data["dispatcher"].py_func.__module__ == __name__:
            event.unregister("numba:compile", self)
            print("Compiling the CPU kernels, once: this takes some seconds.", file=sys.stderr, flush=True)

    def on_end(self, _ended): ...


event.register("numba:compile", _Notice())


def _kernel(function):
    """Compile at the first call, and run on as many threads as torch, as far as there are processors."""
    compiled = None

    def call(*arguments):
        nonlocal compiled
        set_num_threads(min(torch.get_num_threads(), config.NUMBA_NUM_THREADS))
        try:
            compiled = compiled or njit(cache=True, **_PARALLEL)(function)
            compiled(*arguments)
        except (RuntimeError, OSError, EOFError, UnpicklingError):  # a cache that cannot be written, or is damaged
            compiled = njit(**_PARALLEL)(function)
            compiled(*arguments)

    return call


class _Vector(types.Type):
    """`LANES` floats in a register; LLVM's own vectorisation would write the sums to memory after every tap."""


_VECTOR, _WORD = ir.VectorType(ir.FloatType(), LANES), ir.IntType(32)
register_model(_Vector)(lambda manager, kind: models.PrimitiveModel(manager, kind, _VECTOR))


def _pointer(context, builder, kind, array, index, vector=True):
    pointer = builder.gep(context.make_array(kind)(context, builder, array).data, [index])
    return builder.bitcast(pointer, _VECTOR.as_pointer()) if vector else pointer


@intrinsic
def _load(typing, row, lane):
    """``row[lane : lane + LANES]``."""

    def build(context, builder, signature, values):
        return builder.load(_pointer(context, builder, row, *values), align=4)

    return _Vector("Vector")(row, lane), build


@intrinsic
def _store(typing, row, lane, vector):
    """``row[lane : lane + LANES] = vector``."""

    def build(context, builder, signature, values):
        builder.store(values[2], _pointer(context, builder, row, *values[:2]), align=4)
        return context.get_dummy_value()

    return types.none(row, lane, vector), build


@intrinsic
def _add_product(typing, total, array, index, vector):
    """``total + array[index] * vector``; no check for a negative index."""

    def build(context, builder, signature, values):
        scalar = builder.load(_pointer(context, builder, array, *values[1:3], vector=False))
        first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, _WORD(0))
        factor = builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_WORD, LANES), None))
        return builder.fadd(values[0], builder.fmul(factor, values[3], flags=("contract",)), flags=("contract",))

    return vector(total, array, index, vector), build


@_inlined
def _random_word(low, high, lane):
    """A hash that LLVM finds to need products of 32 bits alone, at twice the speed of 64."""
    x = np.uint32(low ^ np.uint32(np.uint32(lane) * np.uint32(0x9E3779B1)))
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD))
    return np.uint32((x ^ (x >> np.uint32(15)) ^ high) * np.uint32(0xD35A2D97))


@_inlined
def _fill_mask(mask, key, row, limit, scale):
    """Put 0 with probability ``limit`` / 2**32, else ``scale``, in each lane.

    SplitMix64 hashes key and row, to 64 bits; two rounds of 32, which vectors have room for, hash them and the lane.
    """
    z = np.uint64(key) + np.uint64(row + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    low, high = np.uint32(z), np.uint32(z >> np.uint64(32))
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
        best = (best * slope if slope > 0 else np.float32(0)) if best <= 0 else best
        out[lane] = best * keep
        code[lane] = LOST if keep == 0 else at


@_inlined
def _unpool(grad, code, slope, scale, v0, v1, v2, v3):
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
        _store(v[0], lane, s0)
        _store(v[1], lane, s1)
        _store(v[2], lane, s2)
        _store(v[3], lane, s3)


@_inlined
def _add_gradient(image, corner, width, taps, v, total):
    """Add the gradient of `_convolve`'s weight, where v is that of its result."""
    for lane in range(v.shape[1]):
        total[len(taps), lane] += v[0, lane] + v[1, lane] + v[2, lane] + v[3, lane]
    for lane in range(0, v.shape[1], LANES):
        g0, g1, g2, g3 = _load(v[0], lane), _load(v[1], lane), _load(v[2], lane), _load(v[3], lane)
        for tap in range(len(taps)):
            at, s = corner + taps[tap], _load(total[tap], lane)
            s = _add_product(_add_product(s, image, at, g0), image, at + 1, g1)
            s = _add_product(_add_product(s, image, at + width, g2), image, at + width + 1, g3)
            _store(total[tap], lane, s)


@_inlined
def _kept(rate):
    """The smallest 32-bit word that keeps its element, and the factor of what is kept."""
    dropped = min(np.round(rate * 2.0**32), 2.0**32 - 1)
    return np.uint32(dropped), np.float32(2.0**32 / (2.0**32 - dropped))


@_kernel
def forward(x, taps, weight, slope, rate, key, out, code):
    """`_pool` of x, or where there are taps, of the convolution of its only channel."""
    (count, height, width, channels), (limit, scale), slope = out.shape, _kept(rate), np.float32(slope)
    for n in prange(count):
        image, mask, v = x[n].reshape(-1), np.full(channels, scale), np.empty((4, channels), np.float32)
        for i in range(height):
            for j in range(width):
                if rate > 0:
                    _fill_mask(mask, key, (n * height + i) * width + j, limit, scale)
                if len(taps) > 0:
                    _convolve(image, 2 * i * x.shape[2] + 2 * j, x.shape[2], taps, weight, v)
                    _pool(v[0], v[1], v[2], v[3], mask, slope, out[n, i, j], code[n, i, j])
                else:
                    up, low, k = x[n, 2 * i], x[n, 2 * i + 1], 2 * j
                    _pool(up[k], up[k + 1], low[k], low[k + 1], mask, slope, out[n, i, j], code[n, i, j])


@_kernel
def backward(grad, code, x, taps, slope, rate, totals, out):
    """The gradient of `forward` by x, into ``out``, or where there are taps by ``weight``, added into ``totals``."""
    (count, height, width, channels), (_, scale), slope = grad.shape, _kept(rate), np.float32(slope)
    for group in prange(GROUPS):
        v = np.empty((4, channels), np.float32)
        for n in range(count * group // GROUPS, count * (group + 1) // GROUPS):
            image = x[n].reshape(-1)
            for i in range(height):
                for j in range(width):
                    g, codes, k = grad[n, i, j], code[n, i, j], 2 * j
                    if len(taps) > 0:
                        _unpool(g, codes, slope, scale, v[0], v[1], v[2], v[3])
                        _add_gradient(image, 2 * i * x.shape[2] + k, x.shape[2], taps, v, totals[group])
                    else:
                        up, low = out[n, 2 * i], out[n, 2 * i + 1]
                        _unpool(g, codes, slope, scale, up[k], up[k + 1], low[k], low[k + 1])


@_kernel
def dropout_mask(key, rate, out):
    """`_fill_mask` of all rows."""
    limit, scale = _kept(rate)
    for row in prange(len(out)):
        _fill_mask(out[row], key, row, limit, scale)
