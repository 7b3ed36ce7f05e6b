"""CPU fast paths of the training step, each the same function as the stock layer it stands for.

Measured on two cores, these two and the channels_last layout take the notebooks' training step to well under half the
time of the stock modules; `benchmarks/` holds the figures. On other devices the stock layers run.
"""

from typing import Any

import torch
from torch import Tensor, nn

_WORDS = 1 << 16  # one 16-bit random word decides one element


class _DropoutByWords(torch.autograd.Function):
    """Inverted dropout whose mask is one comparison of 16-bit random words."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped_words: int) -> Tensor:  # noqa: ANN401
        count = x.numel()
        words = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # 4 words of 16 bits each
        keep = words.view(torch.int16)[:count] >= dropped_words - _WORDS // 2
        keep = keep.as_strided(x.shape, x.stride())  # elements are exchangeable: any dense layout will do
        ctx.save_for_backward(keep)
        ctx.scale = _WORDS / (_WORDS - dropped_words)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        (keep,) = ctx.saved_tensors
        return (grads[0] * keep).mul_(ctx.scale), None


class FastDropout(nn.Dropout):
    """`nn.Dropout` with a cheaper mask on the CPU: the same distribution, its rate rounded to 1/65536.

    The survivors are scaled by the inverse of the *rounded* keep rate, so that the mean is exact. Draws from torch's
    global CPU generator, but not the numbers that `nn.Dropout` would draw.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements of ``x`` (any shape) with probability ``p`` and scale the others; identity in eval mode."""
        dropped_words = round(self.p * _WORDS)
        stock = x.device.type != "cpu" or self.inplace or not 0 < dropped_words < _WORDS
        if not self.training or stock or not _is_dense(x):
            return super().forward(x)
        return _DropoutByWords.apply(x, dropped_words)  # type: ignore[no-any-return]


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def activate_and_pool(x: Tensor, activation: nn.Module, pool: nn.Module) -> Tensor:
    """``pool(activation(x))``; while training it pools first where that is the same function.

    A maximum and a non-decreasing activation commute exactly, element for element and in the gradient, and after
    pooling the activation has a quarter of the work. In eval mode the order stays as written, so that a monitor of
    the activation sees every position.

    Args:
        x: Pre-activations of shape (N, C, H, W).
        activation: The activation module.
        pool: The pooling module.
    """
    if activation.training and isinstance(pool, nn.MaxPool2d) and isinstance(activation, nn.ReLU | nn.LeakyReLU):
        return activation(pool(x))  # type: ignore[no-any-return]
    return pool(activation(x))  # type: ignore[no-any-return]
