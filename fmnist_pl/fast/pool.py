"""ReLU, 2x2 max-pool and dropout as one operation of the training step on a CPU, written into a padded tensor.

All work is in vectorised float kernels on channels-innermost tensors: torch's own max-pool keeps 64-bit indices, and
its kernels for boolean masks are not vectorised. Of equal maxima the first in row order gets the gradient, as in
torch: images have constant backgrounds, so equal maxima are common.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fmnist_pl.fast.dropout import keep_where, kept_share, random_words

Padding = tuple[int, int]  # pixels before and after, of the height and of the width

_threshold_backward = torch.ops.aten.threshold_backward.grad_input


class RunningMaximum:
    """Maximum of four tensors given one after the other, and a code that says which it was.

    The code is a sum of bits: 1, 2 and 4 if the second, third and fourth exceeded all before it. So the maximum lies
    at position k or later if and only if the code exceeds ``AT_OR_AFTER[k - 1]``.

    Args:
        maximum: Receives the maximum; any shape.
        code: Receives the code, float, of the same shape.
        scratch: A buffer of the same shape.
    """

    AT_OR_AFTER = (0.5, 1.5, 3.5)

    def __init__(self, maximum: Tensor, code: Tensor, scratch: Tensor) -> None:
        self.maximum, self.code, self.scratch = maximum, code, scratch

    def start(self, first: Tensor, second: Tensor) -> None:
        """Take the first two tensors; ``first`` may be ``maximum`` itself."""
        torch.gt(second, first, out=self.code)
        torch.maximum(first, second, out=self.maximum)

    def add(self, position: int, values: Tensor) -> None:
        """Take the tensor at ``position`` 2 or 3."""
        torch.gt(values, self.maximum, out=self.scratch)
        self.code.add_(self.scratch, alpha=1 << (position - 1))
        torch.maximum(self.maximum, values, out=self.maximum)


def where_positive(gradient: Tensor, values: Tensor, out: Tensor) -> Tensor:
    """``gradient`` where ``values`` > 0, else 0: the gradient through ReLU and dropout, given their output."""
    return _threshold_backward(gradient, values, 0, grad_input=out)


def where_at_or_after(position: int, gradient: Tensor, code: Tensor, out: Tensor) -> Tensor:
    """``gradient`` where the maximum lies at ``position`` (1 to 3) or later, else 0."""
    limit = RunningMaximum.AT_OR_AFTER[position - 1]
    return _threshold_backward(gradient, code, limit, grad_input=out)


def padded_empty(shape: Sequence[int], padding: Padding) -> tuple[Tensor, Tensor]:
    """A tensor (N, H + p, W + p, C) whose border is zero, and the view of its interior (N, H, W, C), not yet written.

    Args:
        shape: N, H, W, C of the interior.
        padding: Pixels before and after, for both sides.
    """
    count, height, width, channels = shape
    before, after = padding
    whole = torch.empty(count, height + before + after, width + before + after, channels)
    for border in (whole[:, :before], whole[:, before + height :]):
        border.zero_()
    for border in (whole[:, :, :before], whole[:, :, before + width :]):
        border.zero_()
    return whole, interior(whole, padding)


def interior(whole: Tensor, padding: Padding) -> Tensor:
    """The view (N, H, W, C) of a padded tensor without its border."""
    before, after = padding
    return whole[:, before : whole.shape[1] - after, before : whole.shape[2] - after]


def channels_last_view(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C), contiguous; a copy only if the channels were not innermost in memory."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)


class ReluPoolDropout(torch.autograd.Function):
    """``pad(dropout(max_pool2d(relu(x), 2)))`` for x (N, C, H, W) float32 on the CPU.

    The output is its own mask: it is positive exactly where the gradient passes ReLU and dropout.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float, padding: Padding) -> Tensor:  # noqa: ANN401
        """See the class; keeps what the gradient needs."""
        positions = _four_positions(channels_last_view(x))
        maximum, code, scratch = (torch.empty(positions[0].shape) for _ in range(3))
        running = RunningMaximum(maximum, code, scratch)
        running.start(positions[0], positions[1])
        running.add(2, positions[2])
        running.add(3, positions[3])
        whole, inside = padded_empty(maximum.shape, padding)
        if rate > 0:
            maximum.relu_().mul_(1 / kept_share(rate))
            words = random_words(maximum.numel()).view(maximum.shape)
            keep_where(maximum, scratch.copy_(words), rate, out=inside)
        else:
            torch.clamp_min(maximum, 0, out=inside)
        ctx.save_for_backward(whole, code)
        ctx.rate, ctx.padding, ctx.shape = rate, padding, x.shape
        return whole.permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        """The gradients by the inputs of ``forward``."""
        whole, code = ctx.saved_tensors
        gradient = interior(channels_last_view(grads[0]), ctx.padding)
        later = [torch.empty(code.shape) for _ in range(4)]
        where_positive(gradient, interior(whole, ctx.padding), out=later[0])
        if ctx.rate > 0:
            later[0].mul_(1 / kept_share(ctx.rate))
        for position in (1, 2, 3):
            where_at_or_after(position, later[0], code, out=later[position])
        count, channels, height, width = ctx.shape
        grad_x = torch.empty(count, height, width, channels)
        grad_x[:, height // 2 * 2 :].zero_()  # an odd last row or column is not pooled
        grad_x[:, :, width // 2 * 2 :].zero_()
        for position, view in enumerate(_four_positions(grad_x)):
            if position < 3:
                torch.sub(later[position], later[position + 1], out=view)
            else:
                view.copy_(later[3])
        return grad_x.permute(0, 3, 1, 2), None, None


def _four_positions(x: Tensor) -> list[Tensor]:
    """Views (N, H // 2, W // 2, C) of x (N, H, W, C): upper left, upper right, lower left, lower right of each 2x2."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    return [x[:, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]
