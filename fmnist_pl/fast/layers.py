# ruff: noqa: ANN401
"""Layers whose training step on a CPU is one Numba kernel; each is the same function as the stock layers it stands for.

The stock layers run where Numba is missing, on other devices and types, in evaluation, under autocast,
``torch.compile`` and ``torch.func``, in a process forked from one that has loaded the kernels (OpenMP does not survive
a fork), where a hook or a mode watches, and where a layer is another than `ConvBlock` made.
"""

import copy
import functools
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from training_health.relu.sites import ReLUSites
from training_health.torch_private import has_forward_hook, is_transformed, is_watched


def conv_block(
    x: Tensor, pad: nn.Module, conv: nn.Conv2d, norm: nn.Module, activation: nn.Module, pool: nn.Module, drop: nn.Module
) -> Tensor:
    """``drop(pool(activation(norm(conv(pad(x))))))`` by the fastest way that is the same function; x: (N, C, H, W)."""
    if torch.compiler.is_compiling():  # which cannot follow the questions below
        return drop(pool(activation(norm(conv(pad(x))))))
    watched = is_watched(pad, conv, norm, activation, pool, drop)
    fast = not watched and x.dim() == 4 and _has_fast_tail(activation, pool, drop)
    slope, rate = getattr(activation, "negative_slope", 0.0), getattr(drop, "p", 0.0)
    if fast and type(norm) is nn.Identity and _is_first(x, conv) and (kernels := _kernels_for(x, *conv.parameters())):
        columns, rows = int(conv.padding[1]), int(conv.padding[0])
        padded = F.pad(pad(x), (columns, columns, rows, rows))
        return _PoolDropout.apply(kernels, padded, slope, rate, conv.weight, conv.bias)
    x = norm(conv(pad(x)))
    if fast and (kernels := _kernels_for(x)):
        return _PoolDropout.apply(kernels, x, slope, rate, None, None)
    if not watched and _grows(activation) and type(pool) is nn.MaxPool2d and not pool.training:
        return drop(activation(pool(x)))  # the same values from a quarter of the work
    # Where nobody else holds these values, ReLU takes a third of the time without a second tensor of their size.
    held = torch.is_grad_enabled() or has_forward_hook(conv, norm, activation, but=ReLUSites.__module__, globally=True)
    return drop(pool(_in_place(activation, x) if type(activation) is nn.ReLU and not held else activation(x)))


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
        usable = self.training and not self.inplace and 0 < self.p < 1 and x.numel() and x.dim()
        kernels = _kernels_for(x) if usable else None
        if kernels is None:
            return super().forward(x)
        mask = torch.empty(
            x.shape, dtype=x.dtype, memory_format=torch.channels_last if x.dim() == 4 else torch.contiguous_format
        )
        rows = _channels_last(mask) if x.dim() == 4 else mask.numpy()
        kernels.dropout_mask(_random_key(), self.p, rows.reshape(-1, rows.shape[-1]))
        return x * mask


class _PoolDropout(torch.autograd.Function):
    """``dropout(max_pool2d(leaky_relu(x, slope), 2), rate)``; with a weight, of ``conv2d(x, weight, bias)`` for x."""

    @staticmethod
    def forward(
        ctx: Any, kernels: Any, x: Tensor, slope: float, rate: float, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        (count, channels, height, width), taps, matrix = x.shape, np.empty(0, np.int64), torch.empty(0, 0)
        if weight is not None and bias is not None:
            channels, _, rows, columns = weight.shape
            taps = (np.arange(rows)[:, None] * width + np.arange(columns)).ravel()
            height, width = height - rows + 1, width - columns + 1
            matrix = torch.cat([weight.flatten(1).T, bias[None]])  # (taps + 1, C)
        out = np.empty((count, height // 2, width // 2, channels), np.float32)
        code, key = np.empty(out.shape, np.uint8), _random_key() if rate else 0
        kernels.forward(_channels_last(x), taps, matrix.numpy(), slope, rate, key, out, code)
        ctx.save_for_backward(None if weight is None else x)
        ctx.kept = kernels, code, taps, slope, rate, x.shape, None if weight is None else weight.shape
        return _channels_first(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kernels, code, taps, slope, rate, (count, channels, height, width), weight_shape = ctx.kept
        (x,), grad = ctx.saved_tensors, _channels_last(grads[0])
        totals = np.zeros((kernels.GROUPS, len(taps) + 1, code.shape[3]), np.float32)
        # Not `empty`: an odd last row or column is not pooled.
        out = np.zeros((count if x is None else 0, height, width, channels), np.float32)
        kernels.backward(grad, code, grad if x is None else _channels_last(x), taps, slope, rate, totals, out)
        if x is None:
            return None, _channels_first(out), None, None, None, None
        total = torch.from_numpy(totals.sum(axis=0))
        return None, None, None, None, total[:-1].T.reshape(weight_shape), total[-1]


def _in_place(activation: nn.ReLU, x: Tensor) -> Tensor:
    once = copy.copy(activation)  # with its hooks; another thread may be running it
    once.inplace = True
    return once(x)


def _is_first(x: Tensor, conv: nn.Module) -> bool:
    """Whether the kernels have this convolution: of one channel that needs no gradient, to whole vectors of filters."""
    if type(conv) is not nn.Conv2d or conv.bias is None or x.shape[1] != 1 or x.requires_grad:
        return False
    plain = (
        conv.stride == conv.dilation == (1, 1) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    )
    return plain and conv.weight.shape[1] == 1 and conv.weight.shape[0] % 16 == 0


def _grows(activation: nn.Module) -> bool:
    """Whether it is a ReLU, perhaps a leaky one, which a maximum may precede as well as follow."""
    leaky = type(activation) is nn.LeakyReLU and activation.negative_slope > 0
    return leaky or type(activation) is nn.ReLU


def _has_fast_tail(activation: nn.Module, pool: nn.Module, drop: nn.Module) -> bool:
    drops = type(drop) is FastDropout and drop.training and drop.p < 1
    layers = _grows(activation) and (drops or type(drop) is nn.Identity)
    if not layers or type(pool) is not nn.MaxPool2d or not activation.training or not torch.is_grad_enabled():
        return False
    options = pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, pool.return_indices
    return options == (2, 2, 0, 1, False, False)


def _kernels_for(*tensors: Tensor) -> Any:
    """The kernels' module; None where they cannot run."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or torch.jit.is_tracing():
        return None
    for x in tensors:
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and type(x) in {Tensor, nn.Parameter}
        if not plain or is_transformed(x):
            return None
    kernels, process = _loaded_kernels()
    return kernels if process == os.getpid() else None


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


def _random_key() -> int:
    return int(torch.empty((), dtype=torch.int64).random_())
