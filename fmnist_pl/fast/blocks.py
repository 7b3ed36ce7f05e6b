"""Chooses the CPU fast paths of the training step; each is the same function as the stock layers it stands for.

Where none applies (another device, evaluation, autocast, a hook or a torch-function mode that watches the layers) the
stock modules run. `benchmarks/` holds what each is worth.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode

from fmnist_pl.fast.dropout import WORDS, FastDropout, dropped_words
from fmnist_pl.fast.first_block import ConvReluPoolDropout
from fmnist_pl.fast.pool import Padding, ReluPoolDropout

__all__ = ["FastDropout", "Padding", "activate_and_pool", "conv_block", "is_watched", "pad"]


def conv_block(
    x: Tensor,
    conv: nn.Conv2d,
    norm: nn.Module,
    activation: nn.Module,
    pool: nn.Module,
    dropout: nn.Module,
    padding: Padding,
) -> Tensor:
    """``pad(dropout(pool(activation(norm(conv(x))))))`` by the fastest way that is the same function.

    Args:
        x: Shape (N, C, H, W).
        conv: The convolution.
        norm: A normalisation, or an identity.
        activation: Any activation.
        pool: A pool, or an identity.
        dropout: A dropout, or an identity.
        padding: Rows and columns of zeros put before and after the result.
    """
    if can_fuse_tail(x, activation, pool, dropout) and not is_watched(conv, norm, activation, pool, dropout):
        rate = dropout.p if isinstance(dropout, nn.Dropout) else 0.0
        if can_fuse_first_block(x, conv, norm):
            return ConvReluPoolDropout.apply(x, conv.weight, conv.bias, rate, padding)
        return ReluPoolDropout.apply(norm(conv(x)), rate, padding)
    return pad(dropout(activate_and_pool(norm(conv(x)), activation, pool)), padding)


def can_fuse_tail(x: Tensor, activation: nn.Module, pool: nn.Module, dropout: nn.Module) -> bool:
    """Whether activation, pool and dropout can be one `ReluPoolDropout`."""
    if not activation.training or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if type(activation) is not nn.ReLU or not _is_plain_2x2(pool):
        return False
    if isinstance(dropout, nn.Identity):
        return True
    return type(dropout) is FastDropout and dropout.training and dropped_words(dropout.p) < WORDS


def can_fuse_first_block(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> bool:
    """Whether the convolution can go into a `ConvReluPoolDropout` with them."""
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.padding == (0, 0) and conv.bias is not None
    square = conv.kernel_size[0] == conv.kernel_size[1]
    return conv.in_channels == 1 and plain and square and isinstance(norm, nn.Identity) and not x.requires_grad


def is_watched(*modules: nn.Module) -> bool:
    """Whether someone looks at the modules' calls: by a hook on one of them, or by a torch-function mode."""
    if _get_current_function_mode() is not None:
        return True
    return any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in modules
    )


def activate_and_pool(x: Tensor, activation: nn.Module, pool: nn.Module) -> Tensor:
    """``pool(activation(x))``; while training it pools first where that is the same function and nobody watches.

    A maximum and a non-decreasing activation commute exactly, element for element and in the gradient, and after
    pooling the activation has a quarter of the work. Evaluation keeps the order as written: a monitor sees every
    position there, and with or without one the same operations run.

    Args:
        x: Pre-activations of shape (N, C, H, W).
        activation: The activation module.
        pool: The pooling module.
    """
    monotone = isinstance(activation, nn.ReLU | nn.LeakyReLU) and isinstance(pool, nn.MaxPool2d)
    if activation.training and monotone and not is_watched(activation, pool):
        return activation(pool(x))
    return pool(activation(x))


def pad(x: Tensor, padding: Padding) -> Tensor:
    """Put ``padding`` = (before, after) rows and columns of zeros around x (N, C, H, W)."""
    before, after = padding
    return F.pad(x, (before, after, before, after)) if before or after else x


def _is_plain_2x2(pool: nn.Module) -> bool:
    if type(pool) is not nn.MaxPool2d or pool.ceil_mode or pool.return_indices:
        return False
    sizes = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    return all(size in (value, (value, value)) for size, value in zip(sizes, (2, 2, 0, 1), strict=True))
