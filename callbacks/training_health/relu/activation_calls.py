"""Which torch functions are a ReLU, which are activations that cannot die, and which say where the units are."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_aten = torch.ops.aten


class Role(NamedTuple):
    """What a function call means to `ReLUSites`."""

    kind: Literal["relu", "never zero", "uncounted", "weights"]
    name: str = ""  # the activation's; for "uncounted" the reason
    feature_dim: int = 0  # of the output, for "weights"


_HARDTANH = {F.hardtanh, F.hardtanh_}
_CLAMP = {torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, Tensor.clip, Tensor.clip_}
_CLAMP_MIN = {torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_}

_ROLES: dict[Callable[..., Any], Role] = {
    **dict.fromkeys((
        F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_,
        _aten.relu, _aten.relu.default, _aten.relu_, _aten.relu_.default,
    ), Role("relu", "relu")),
    F.relu6: Role("relu", "relu6"),
    F.hardswish: Role("uncounted", "hardswish is zero with zero gradient below -3, which is not counted"),
    # Their gradient is zero nowhere, or only in the limit: a unit always has a way back.
    **{function: Role("never zero", function.__name__.rstrip("_")) for function in (
        F.leaky_relu, F.leaky_relu_, F.prelu, torch.prelu, F.rrelu, F.rrelu_, F.elu, F.elu_, F.selu, F.selu_,
        F.celu, F.celu_, F.gelu, F.silu, F.mish, F.softplus,
    )},
    # Operations with weights, by the dimension their output holds its features on.
    **dict.fromkeys((
        F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d,
    ), Role("weights", feature_dim=1)),
    **dict.fromkeys((
        F.linear, F.bilinear, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm,
        Tensor.bmm, torch.addmm, torch.baddbmm, torch.einsum,
    ), Role("weights", feature_dim=-1)),
}  # fmt: skip

# Modules that are nothing but an activation: a call inside them is theirs, not "their relu".
ACTIVATION_MODULES = (
    nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Threshold, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU,
    nn.SiLU, nn.Mish, nn.Softplus, nn.Hardswish,
)  # fmt: skip


def role_of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Role | None:
    """Tell what a call of ``func`` with these arguments is; None for most functions.

    >>> role_of(torch.nn.functional.hardtanh, (torch.zeros(2), 0.0, 6.0), {})
    Role(kind='relu', name='relu6', feature_dim=0)
    >>> role_of(torch.tanh, (torch.zeros(2),), {})
    """
    if (role := _ROLES.get(func)) is not None:
        return role
    if func in _HARDTANH and _argument(args, kwargs, 1, "min_val") == 0:
        return Role("relu", "relu6" if _argument(args, kwargs, 2, "max_val") == 6 else "hardtanh")
    if func is F.threshold and args[1:3] == (0, 0):
        return Role("relu", "relu")
    half_open = func in _CLAMP_MIN or (func in _CLAMP and _argument(args, kwargs, 2, "max") is None)
    lowest = _argument(args, kwargs, 1, "min") if half_open else None
    if isinstance(lowest, (int, float)) and lowest == 0:  # a tensor as the bound is another function
        return Role("uncounted", "clamp at zero: the same function as a ReLU, but not counted as one")
    return None


def calls_no_activation(module: nn.Module) -> bool:
    """Whether ``module`` is one of torch's own layers without parts, no activation: no site is named after it."""
    own = type(module).__module__.startswith("torch.nn.modules.")
    return own and not isinstance(module, ACTIVATION_MODULES) and next(module.children(), None) is None


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str) -> object:
    return args[position] if len(args) > position else kwargs.get(name)
