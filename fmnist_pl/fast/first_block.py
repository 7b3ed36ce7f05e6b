"""The first convolution with its ReLU, max-pool and dropout, as one operation of the training step on a CPU.

With one input channel a convolution is all memory traffic: the baseline's reads 0.2 MB and writes 13 MB, which the
pool then reduces to a quarter. Here some images at a time go through everything while they are in the cache, and the
13 MB never exist. Each pooled position needs a patch of (k + 1) x (k + 1) pixels, and the convolution at its four
positions is four matrix products of the patches with the filters shifted by a row, a column or both.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fmnist_pl.fast.dropout import keep_where, kept_share, random_words
from fmnist_pl.fast.pool import (
    Padding,
    RunningMaximum,
    channels_last_view,
    interior,
    padded_empty,
    where_at_or_after,
    where_positive,
)

_CHUNK_BYTES = 400_000  # of one buffer of one thread: four of them stay in a level-2 cache of 2 MB


class ConvReluPoolDropout(torch.autograd.Function):
    """``pad(dropout(max_pool2d(relu(conv2d(x, weight, bias)), 2)))`` for x (N, 1, H, W) float32 that needs no gradient.

    Dropout's scale is applied to the filters, which are few: max-pool and ReLU commute with a positive factor.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rate: float, padding: Padding) -> Tensor:  # noqa: ANN401
        """See the class; keeps what the gradient needs."""
        kernel, channels = weight.shape[-1], len(weight)
        patches, (height, width) = _patches(x, kernel)
        shifted = _shifted_filters(weight, bias) * (1 / kept_share(rate))
        shape = (len(x), height, width, channels)
        code = torch.empty(shape)
        whole, inside = padded_empty(shape, padding)
        words = random_words(code.numel()).view(shape) if rate > 0 else None
        per_chunk = _images_per_chunk(height * width * channels)
        buffers = [torch.empty(per_chunk, *shape[1:]) for _ in range(3)]
        for chunk in _chunks(len(x), per_chunk):
            maximum, values, scratch = (buffer[: chunk.stop - chunk.start] for buffer in buffers)
            running = RunningMaximum(maximum, code[chunk], scratch)
            pixels = patches[:, chunk].flatten(1).T
            torch.mm(pixels, shifted[0], out=maximum.view(-1, channels))
            for position in (1, 2, 3):
                torch.mm(pixels, shifted[position], out=values.view(-1, channels))
                if position == 1:
                    running.start(maximum, values)
                else:
                    running.add(position, values)
            if words is None:
                torch.clamp_min(maximum, 0, out=inside[chunk])
            else:
                keep_where(maximum.relu_(), scratch.copy_(words[chunk]), rate, out=inside[chunk])
        ctx.save_for_backward(patches, whole, code)
        ctx.rate, ctx.padding, ctx.weight_shape = rate, padding, weight.shape
        return whole.permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor, None, None]:  # noqa: ANN401
        """The gradients by the inputs of ``forward``."""
        patches, whole, code = ctx.saved_tensors
        channels, _, kernel, _ = ctx.weight_shape
        gradient = interior(channels_last_view(grads[0]), ctx.padding)
        inside = interior(whole, ctx.padding)
        # products[k]: patches times the gradient of the pooled positions whose maximum lies at k or later
        products = [torch.zeros(len(patches), channels) for _ in range(4)]
        per_chunk = _images_per_chunk(code.shape[1:].numel())  # a rank may have no image in the last batch
        buffers = [torch.empty(per_chunk, *code.shape[1:]) for _ in range(2)]
        for chunk in _chunks(len(code), per_chunk):
            passed, later = (buffer[: chunk.stop - chunk.start] for buffer in buffers)
            pixels = patches[:, chunk].flatten(1)
            where_positive(gradient[chunk], inside[chunk], out=passed)
            products[0].addmm_(pixels, passed.view(-1, channels))
            for position in (1, 2, 3):
                where_at_or_after(position, passed, code[chunk], out=later)
                products[position].addmm_(pixels, later.view(-1, channels))
        scale = 1 / kept_share(ctx.rate)
        grad_bias = products[0][-1] * scale
        at = [(p[:-1]).view(kernel + 1, kernel + 1, channels) for p in products]
        grad_weight = torch.zeros(kernel, kernel, channels)
        for position, (row, column) in enumerate(_SHIFTS):
            window = (slice(row, row + kernel), slice(column, column + kernel))
            grad_weight += at[position][window]
            if position < 3:
                grad_weight -= at[position + 1][window]
        grad_weight = grad_weight.mul_(scale).permute(2, 0, 1).unsqueeze(1)
        return None, grad_weight.contiguous(memory_format=torch.channels_last), grad_bias, None, None


_SHIFTS = ((0, 0), (0, 1), (1, 0), (1, 1))  # row and column of a pool's four positions, in the order of its maximum


def _patches(x: Tensor, kernel: int) -> tuple[Tensor, tuple[int, int]]:
    """The pixels behind each pooled position and a 1 for the bias, ((k + 1)^2 + 1, N, H', W'), and (H', W').

    One row per pixel of the patch: gathering along images and rows is four times as fast as patch by patch.
    """
    count, _, rows, columns = x.shape
    height, width, side = (rows - kernel + 1) // 2, (columns - kernel + 1) // 2, kernel + 1
    x = x.contiguous()
    windows = x.as_strided((side, side, count, height, width), (columns, 1, rows * columns, 2 * columns, 2))
    patches = torch.empty(side * side + 1, count, height, width)
    patches[-1] = 1
    patches[:-1].unflatten(0, (side, side)).copy_(windows)
    return patches, (height, width)


def _shifted_filters(weight: Tensor, bias: Tensor) -> Tensor:
    """Filters (C, 1, k, k) and bias (C,) as four matrices ((k + 1)^2 + 1, C), one per position of the pool."""
    kernel = weight.shape[-1]
    filters = weight[:, 0].permute(1, 2, 0)  # (k, k, C)
    shifted = [
        F.pad(filters, (0, 0, column, 1 - column, row, 1 - row)).reshape((kernel + 1) ** 2, -1)
        for row, column in _SHIFTS
    ]
    return torch.stack([torch.cat([matrix, bias[None]]) for matrix in shifted])


def _images_per_chunk(elements_per_image: int) -> int:
    return max(1, _CHUNK_BYTES * torch.get_num_threads() // (4 * elements_per_image))


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
