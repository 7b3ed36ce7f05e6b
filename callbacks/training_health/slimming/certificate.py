"""How large the pre-activation of a unit can be for any input: one that cannot be above 0 is dead for any input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FLOAT32_ROUNDING = 2.0**-24


def largest_pre_activation(
    weight: Tensor, bias: Tensor | None, low: float, high: float, norm: nn.Module | None
) -> Tensor:
    r"""Bound a layer's outputs from above for every input whose elements lie in [low, high].

    With :math:`w^+` and :math:`w^-` a unit's positive and negative weights the bound is
    :math:`\sum w^+ high + \sum w^- low + b` (interval arithmetic, Moore 1966), for a convolution at every position, if
    the range holds what is padded too. Batch normalisation in eval mode is a factor and a summand, so it is folded into
    weights and bias first. What a sum in float32 may be off by, :math:`n 2^{-24} \sum |w x|`, is added, unless all
    terms of a unit are at most 0.

    Args:
        weight: Shape ``(units, ...)``.
        bias: Shape ``(units,)``.
        low: Smallest input.
        high: Largest input, ``math.inf`` where it is unknown.
        norm: Batch normalisation between the layer and its ReLU.

    Returns:
        float64, shape ``(units,)``.

    >>> weight = torch.tensor([[-1.0, -2.0], [1.0, -2.0], [1.0, -2.0]])
    >>> largest_pre_activation(weight, torch.tensor([0.0, -1.5, -0.5]), 0, 1, None).round(decimals=3).tolist()
    [0.0, -0.5, 0.5]
    """
    taps = weight.detach().flatten(1).double()
    shift = taps.new_zeros(len(taps)) if bias is None else bias.detach().double()
    if norm is not None:
        state = {name: tensor.detach().double() for name, tensor in norm.state_dict().items()}
        factor = (state["running_var"] + float(norm.eps)).rsqrt() * state.get("weight", 1.0)  # type: ignore[arg-type]
        taps, shift = taps * factor[:, None], (shift - state["running_mean"]) * factor + state.get("bias", 0.0)
    # Where a weight is 0 its term is 0, also if the range has no end.
    most = torch.where(taps > 0, taps * high, torch.where(taps < 0, taps * low, 0.0))
    largest = torch.where(taps != 0, taps.abs() * max(abs(low), abs(high)), 0.0)
    error = (taps.shape[1] + 4) * _FLOAT32_ROUNDING * (largest.sum(1) + shift.abs())
    total = most.sum(1) + shift
    return torch.where((most <= 0).all(1) & (shift <= 0), total, total + error)
