"""Which torch functions are a ReLU, which are activations that cannot die, and which say where the units are."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_aten = torch.ops.aten

_RELU = {
    F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_,
    _aten.relu, _aten.relu.default, _aten.relu_, _aten.relu_.default,
}  # fmt: skip
_HARDTANH = {F.hardtanh, F.hardtanh_}
_CLAMP = {torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, Tensor.clip, Tensor.clip_}
_CLAMP_MIN = {torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_}

# Their gradient is zero nowhere, or only in the limit: a unit always has a way back.
_CANNOT_DIE: dict[Callable[..., Any], str] = {
    F.leaky_relu: "leaky_relu", F.leaky_relu_: "leaky_relu", F.prelu: "prelu", torch.prelu: "prelu",
    F.rrelu: "rrelu", F.rrelu_: "rrelu", F.elu: "elu", F.elu_: "elu", F.selu: "selu", F.selu_: "selu",
    F.celu: "celu", F.celu_: "celu", F.gelu: "gelu", F.silu: "silu", F.mish: "mish", F.softplus: "softplus",
}  # fmt: skip

# Operations with weights, by the dimension their output holds its features on.
_FEATURES_SECOND = {
    F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
}  # fmt: skip
_FEATURES_LAST = {
    F.linear, F.bilinear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm,
    torch.addmm, torch.baddbmm, torch.einsum,
}  # fmt: skip

# Every function that one of the questions below is about.
NOTED: frozenset[Any] = frozenset().union(
    _RELU, {F.relu6}, _HARDTANH, _CLAMP, _CLAMP_MIN, {F.threshold, F.hardswish},
    _CANNOT_DIE, _FEATURES_SECOND, _FEATURES_LAST,
)  # fmt: skip

# Modules that are nothing but an activation: a call inside them is theirs, not "their relu".
ACTIVATION_MODULES = (
    nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Threshold, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU,
    nn.SiLU, nn.Mish, nn.Softplus, nn.Hardswish,
)  # fmt: skip

# Modules that call no activation and that no site can be named after. Exact types: a subclass may do anything.
SILENT_MODULES = frozenset({
    nn.Identity, nn.Flatten, nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
})  # fmt: skip


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, default: object) -> object:
    return args[position] if len(args) > position else kwargs.get(name, default)


def relu_kind(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Name the ReLU this call computes: "relu", "relu6", "hardtanh" (any other cap above zero), or None."""
    if func in _RELU:
        return "relu"
    if func is F.relu6:
        return "relu6"
    if func in _HARDTANH and _argument(args, kwargs, 1, "min_val", -1.0) == 0:
        return "relu6" if _argument(args, kwargs, 2, "max_val", 1.0) == 6 else "hardtanh"
    if func is F.threshold and args[1:3] == (0, 0):
        return "relu"
    return None


def immortal_kind(func: Callable[..., Any]) -> str | None:
    """Name an activation whose units cannot die, or None."""
    return _CANNOT_DIE.get(func)


def uncounted_reason(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Say why an activation that can output a hard zero is not counted, or None if this is not one."""
    if func is F.hardswish:
        return "hardswish is zero with zero gradient below -3, which is not counted"
    at_zero = func in _CLAMP_MIN and _argument(args, kwargs, 1, "min", None) == 0
    if func in _CLAMP and _argument(args, kwargs, 2, "max", None) is None:
        at_zero = _argument(args, kwargs, 1, "min", None) == 0
    return "clamp at zero: the same function as a ReLU, but not counted as one" if at_zero else None


def feature_dim(func: Callable[..., Any]) -> int | None:
    """Give the dimension this operation's output holds its features on, or None if it has no weights."""
    return 1 if func in _FEATURES_SECOND else -1 if func in _FEATURES_LAST else None
