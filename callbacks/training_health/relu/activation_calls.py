"""Which torch functions are a ReLU, which are activations that cannot die, and which have weights."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Role(NamedTuple):
    """What a function call means to `ReLUSites`."""

    kind: Literal["relu", "never zero", "uncounted", "weights"]
    name: str = ""  # the activation's
    feature_dim: int | None = None  # of the output, for "weights"; None: it depends on the operands
    by_numbers: bool = False  # a ReLU only where weights came before: a clamp may prepare data or belong to a loss
    reason: str = ""  # for "uncounted"


RELU = Role("relu", "relu")
RELU_BY_NUMBERS = Role("relu", "relu", by_numbers=True)


def _uncounted(name: str, where: str) -> Role:
    return Role("uncounted", name, reason=f"{name} is zero with zero gradient {where}, which is not counted")


def _argument(call: Arguments, position: int, name: str, default: object = None) -> Any:  # noqa: ANN401
    args, kwargs = call
    return args[position] if len(args) > position else kwargs.get(name, default)


def _bounded(upper: object) -> str:
    return "relu" if upper is None else "relu6" if upper == 6 else "hardtanh"


def _clamp(call: Arguments) -> Role | None:
    lower, upper = _argument(call, 1, "min"), _argument(call, 2, "max")
    if lower is None and isinstance(upper, (int, float)) and upper == 0:  # as in -(-x).clamp(max=0)
        return _uncounted("clamp", "above 0")._replace(by_numbers=True)
    numbers = isinstance(lower, (int, float)) and (upper is None or isinstance(upper, (int, float)))
    return Role("relu", _bounded(upper), by_numbers=True) if numbers and lower == 0 else None


def _hardtanh(call: Arguments) -> Role | None:
    return Role("relu", _bounded(_argument(call, 2, "max_val", 1))) if _argument(call, 1, "min_val") == 0 else None


def _threshold(call: Arguments) -> Role | None:
    lower = _argument(call, 1, "threshold")
    if _argument(call, 2, "value") != 0 or lower < 0:
        return None
    return RELU if lower == 0 else _uncounted("threshold", f"up to {lower}")


def _prelu(call: Arguments) -> Role:
    flat = not bool(_argument(call, 1, "weight").any())
    return _uncounted("prelu", "below 0 while its slopes are 0") if flat else Role("never zero", "prelu")


def _relu_if_flat(name: str, *slopes: tuple[int, str, float]) -> Callable[[Arguments], Role]:
    """Make the rule for an activation that is a ReLU where all these arguments are 0, and else never zero."""

    def rule(call: Arguments) -> Role:
        return RELU if all(_argument(call, *slope) == 0 for slope in slopes) else Role("never zero", name)

    return rule


# By the call's arguments.
_RULES: dict[Callable[..., Any], Callable[[Arguments], Role | None]] = {
    **dict.fromkeys((
        torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, torch.clip_, Tensor.clip, Tensor.clip_,
    ), _clamp),
    **dict.fromkeys((torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_), _clamp),
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _hardtanh),
    **dict.fromkeys((F.threshold, F.threshold_, torch.threshold, torch.threshold_),  # type: ignore[attr-defined]
                    _threshold),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _relu_if_flat("leaky_relu", (1, "negative_slope", 0.01))),
    **dict.fromkeys((F.rrelu, F.rrelu_, torch.rrelu, torch.rrelu_),
                    _relu_if_flat("rrelu", (1, "lower", 1 / 8), (2, "upper", 1 / 3))),
    **dict.fromkeys((F.prelu, torch.prelu, Tensor.prelu), _prelu),
    **dict.fromkeys((F.elu, F.elu_), _relu_if_flat("elu", (1, "alpha", 1.0))),
}  # fmt: skip

_ROLES: dict[Callable[..., Any], Role] = {
    **dict.fromkeys((F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), RELU),
    F.relu6: Role("relu", "relu6"),
    F.hardswish: _uncounted("hardswish", "below -3"),
    F.hardsigmoid: _uncounted("hardsigmoid", "below -3"),
    **dict.fromkeys((F.hardshrink, torch.hardshrink, Tensor.hardshrink), _uncounted("hardshrink", "near 0")),
    F.softshrink: _uncounted("softshrink", "near 0"),
    # Their gradient is zero nowhere, or only in the limit: a unit always has a way back.
    **{function: Role("never zero", function.__name__.rstrip("_")) for function in (
        F.selu, F.selu_, torch.selu, torch.selu_, F.celu, F.celu_, torch.celu, torch.celu_, F.gelu,
        F.silu, F.mish, F.softplus,
    )},
    # Operations with weights, by the dimension their output holds its features on.
    **dict.fromkeys((F.conv1d, F.conv_transpose1d), Role("weights", feature_dim=-2)),
    **dict.fromkeys((F.conv2d, F.conv_transpose2d), Role("weights", feature_dim=-3)),
    **dict.fromkeys((F.conv3d, F.conv_transpose3d), Role("weights", feature_dim=-4)),
    **dict.fromkeys((F.linear, F.bilinear), Role("weights", feature_dim=-1)),
    **dict.fromkeys((
        torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.mm, Tensor.mm, torch.bmm, Tensor.bmm, torch.addmm,
        torch.baddbmm, torch.einsum,
    ), Role("weights")),
}  # fmt: skip

# The same functions, as an exported network calls them: with the same arguments, by PyTorch's own names.
_TABLES: tuple[dict[Callable[..., Any], Any], ...] = (_RULES, _ROLES)
for _table in _TABLES:
    for _function, _meaning in [*_table.items()]:
        if (_packet := getattr(torch.ops.aten, _function.__name__, None)) is not None:
            _table |= dict.fromkeys([_packet, *(getattr(_packet, name) for name in _packet.overloads())], _meaning)

# Modules that are nothing but an activation: a call inside them is theirs, not "their relu".
ACTIVATION_MODULES = (
    nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Threshold, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU,
    nn.SiLU, nn.Mish, nn.Softplus, nn.Hardswish, nn.Hardsigmoid, nn.Hardshrink, nn.Softshrink,
)  # fmt: skip

TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED_CONVOLUTIONS)


def role_of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Role | None:
    """Tell what a call of ``func`` with these arguments is; None for most functions.

    >>> role_of(torch.nn.functional.hardtanh, (torch.zeros(2), 0.0, 6.0), {}).name
    'relu6'
    >>> role_of(torch.tanh, (torch.zeros(2),), {})
    """
    if (role := _ROLES.get(func)) is not None:
        return role
    return rule((args, kwargs)) if (rule := _RULES.get(func)) is not None else None


def calls_no_activation(module: nn.Module) -> bool:
    """Whether ``module`` is one of torch's own layers without parts, no activation: no site is named after it."""
    own = type(module).__module__.startswith("torch.nn.modules.")
    return own and not isinstance(module, ACTIVATION_MODULES) and next(module.children(), None) is None
