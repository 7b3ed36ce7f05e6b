# ruff: noqa: ANN401
"""Layers whose training step on a CPU is one Numba kernel; each is the same function as the stock layers it stands for.

The stock layers run where Numba is missing, on other devices and types, in evaluation, under autocast and
``torch.compile``, in a process forked from one that has run the kernels (OpenMP does not survive a fork), and where a
hook or a torch-function mode watches.
"""

import functools
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from training_health.torch_private import is_watched

_WORDS = 1 << 32  # one 32-bit random word decides one element


def conv_block(
    x: Tensor, pad: nn.Module, conv: nn.Conv2d, norm: nn.Module, activation: nn.Module, pool: nn.Module, drop: nn.Module
) -> Tensor:
    """``drop(pool(activation(norm(conv(pad(x))))))`` by the fastest way that is the same function; x: (N, C, H, W)."""
    watched = is_watched(pad, conv, norm, activation, pool, drop)
    if watched or not _has_fast_tail(activation, pool, drop) or not _kernels_for(x):
        return drop(pool(activation(norm(conv(pad(x))))))
    slope, rate = getattr(activation, "negative_slope", 0.0), getattr(drop, "p", 0.0)
    if _is_first(x, conv) and type(norm) is nn.Identity:
        columns, rows = int(conv.padding[1]), int(conv.padding[0])
        return _PoolDropout.apply(F.pad(pad(x), (columns,) * 2 + (rows,) * 2), conv.weight, conv.bias, slope, rate)
    return _PoolDropout.apply(norm(conv(pad(x))), None, None, slope, rate)


class FastDropout(nn.Dropout):
    """`nn.Dropout` whose mask is a hash of a key and the position, the same on any number of threads.

    Each call draws its key from torch's global CPU generator, so it follows `torch.manual_seed`. Where that is called
    before each step, as by `BatchLoader`, the mask is a function of (seed, epoch, batch, rank), the layer's turn in the
    forward pass and the position. The rate is rounded to a multiple of 2**-32.

    >>> FastDropout(0.5)(torch.ones(4, 8)).unique()
    tensor([0., 2.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements of ``x`` (any shape) with probability ``p`` and scale the others; identity in eval mode."""
        usable = self.training and not self.inplace and 0 < _dropped(self.p) < _WORDS and x.numel() and x.dim()
        if not usable or not _kernels_for(x):
            return super().forward(x)
        mask = np.empty([x.shape[i] for i in (0, 2, 3, 1)] if x.dim() == 4 else x.shape, np.float32)
        _kernels().dropout_mask(_random_key(), _dropped(self.p), _scale(self.p), mask.reshape(-1, mask.shape[-1]))
        return x * (_channels_first(mask) if x.dim() == 4 else torch.from_numpy(mask))


class _PoolDropout(torch.autograd.Function):
    """``dropout(max_pool2d(leaky_relu(x, slope), 2))``, or with ``conv2d(x, weight, bias)`` in the place of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, slope: float, rate: float) -> Tensor:
        (count, channels, height, width), pixels = x.shape, _channels_last(x)
        taps, matrix = np.empty(0, np.int64), torch.empty(0, 0)
        if weight is not None and bias is not None:
            channels, _, *kernel = weight.shape
            taps = (np.arange(kernel[0])[:, None] * width + np.arange(kernel[1])).ravel()
            height, width = height - kernel[0] + 1, width - kernel[1] + 1
            matrix = torch.cat([weight.detach().flatten(1).T, bias.detach()[None]])  # (taps + 1, C)
        out = np.empty((count, height // 2, width // 2, channels), np.float32)
        code, key = np.empty(out.shape, np.uint8), _random_key() if _dropped(rate) else 0
        numbers = slope, key, _dropped(rate), _scale(rate)
        _kernels().forward(pixels, taps, matrix.numpy(), *numbers, out, code)
        ctx.save_for_backward(*(() if weight is None else (x, weight)))
        ctx.kept = code, taps, x.shape, slope, _scale(rate)
        return _channels_first(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (code, taps, (count, channels, height, width), slope, scale), first = ctx.kept, bool(ctx.saved_tensors)
        grad = _channels_last(grads[0])
        pixels = _channels_last(ctx.saved_tensors[0]) if first else grad
        totals = np.zeros((_kernels().GROUPS, len(taps) + 1, code.shape[3]), np.float32)
        allocate = np.zeros if height % 2 or width % 2 else np.empty  # an odd last row or column is not pooled
        out = allocate((0 if first else count, height, width, channels), np.float32)
        _kernels().backward(grad, code, pixels, taps, slope, scale, totals, out)
        if not first:
            return _channels_first(out), None, None, None, None
        total = torch.from_numpy(totals.sum(axis=0))
        grad_weight = total[:-1].T.reshape(ctx.saved_tensors[1].shape).contiguous(memory_format=torch.channels_last)
        return None, grad_weight, total[-1], None, None


def _is_first(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether the kernels have this convolution: of one channel that needs no gradient, to whole vectors of filters."""
    plain = conv.stride == conv.dilation == (1, 1) and conv.padding_mode == "zeros" and conv.bias is not None
    return plain and conv.in_channels == 1 and conv.out_channels % 16 == 0 and not x.requires_grad


def _has_fast_tail(activation: nn.Module, pool: nn.Module, drop: nn.Module) -> bool:
    if not activation.training or not torch.is_grad_enabled() or type(pool) is not nn.MaxPool2d:
        return False
    monotone = type(activation) is nn.ReLU or (type(activation) is nn.LeakyReLU and activation.negative_slope > 0)
    sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    plain = all(size in (n, (n, n)) for size, n in zip(sizes, (2, 2, 0, 1), strict=True)) and not pool.ceil_mode
    drops = type(drop) is FastDropout and drop.training and _dropped(drop.p) < _WORDS
    return monotone and plain and not pool.return_indices and (drops or type(drop) is nn.Identity)


def _kernels_for(x: Tensor) -> Any:
    if x.device.type != "cpu" or x.dtype != torch.float32 or type(x) is not Tensor:
        return None
    return None if torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() else _kernels()


def _kernels() -> Any:
    """The kernels' module, set to torch's number of threads; None where they cannot run."""
    kernels, process = _loaded_kernels()
    if process != os.getpid():
        return None
    kernels.use_threads(torch.get_num_threads())
    return kernels


@functools.cache
def _loaded_kernels() -> tuple[Any, int]:
    """The kernels' module and the process that loaded it."""
    threads = torch.get_num_threads()
    try:
        from fmnist_pl.fast import kernels
    except (ImportError, ValueError):  # no Numba; no OpenMP for it
        return None, 0
    finally:
        torch.set_num_threads(threads)  # they share OpenMP's setting, and Numba's start changed it
    return kernels, os.getpid()


def _channels_last(x: Tensor) -> np.ndarray:
    """(N, C, H, W) as (N, H, W, C), C-contiguous."""
    return x.detach().contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).numpy()


def _channels_first(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def _dropped(rate: float) -> int:
    """How many of the random words drop their element."""
    return round(rate * _WORDS)


def _scale(rate: float) -> float:
    return _WORDS / (_WORDS - _dropped(rate))


def _random_key() -> int:
    return int(torch.empty((), dtype=torch.int64).random_())
