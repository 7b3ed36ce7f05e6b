"""Begin again with units: new incoming weights, outgoing weights zero or new, nothing left in the optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from training_health.revive.wiring import Use, Wires


def weight_scales(module: nn.Module) -> dict[str, float]:
    """Root mean square of each weight of two dimensions or more, by name."""
    found = {
        name: parameter.detach().float().square().mean().sqrt()
        for name, parameter in module.named_parameters()
        if not is_lazy(parameter) and parameter.dim() > 1 and parameter.numel() and parameter.is_floating_point()
    }
    return dict(zip(found, torch.stack([*found.values()]).tolist(), strict=True)) if found else {}


class Resetter:
    """Begins again with units of one module.

    Weights are drawn from a uniform distribution around zero with the root mean square that the layer's weights had at
    the start: the layer's own distribution where that was PyTorch's or Keras's default, and its variance otherwise. A
    layer that was all zero gets ``1 / sqrt(3 fan_in)``, as PyTorch's ``reset_parameters``.

    Args:
        module: Whose parameters and buffers the wires name.
        optimizers: Whose state is cleared at what is drawn again.
        scales: Of `weight_scales`, at the start.
        generator: On the CPU, so that all devices and ranks draw the same.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizers: Sequence[Optimizer],
        scales: Mapping[str, float],
        generator: torch.Generator,
    ) -> None:
        self._tensors = dict(chain(module.named_parameters(), module.named_buffers()))
        self._optimizers, self._scales, self._generator = optimizers, scales, generator

    @torch.no_grad()
    def incoming(self, wires: Wires, units: list[int]) -> None:
        """New weights into ``units``, bias 0, batch normalisation as at its start."""
        assert wires.feed is not None
        feed = wires.feed
        rows = torch.tensor([feed.rows[unit] for unit in units])

        def whole(tensor: Tensor) -> Iterator[tuple[Tensor, int, Tensor]]:
            yield tensor, 0, rows.to(tensor.device)

        self._write(feed.weight, whole, draw=True)
        for norm in feed.norms:
            for name, value in zip(norm, (1.0, 0.0, 0.0, 1.0), strict=True):
                self._write(name, whole, value)
        self._write(feed.bias, whole)

    @torch.no_grad()
    def outgoing(self, wires: Wires, units: list[int], drawn: bool) -> None:
        """Weights out of ``units``, of every layer that takes them in: zero, or drawn again."""
        for use in wires.uses:
            self._write(use.weight, lambda tensor, use=use: _columns(tensor, use, units), draw=drawn)  # type: ignore[misc]

    def _write(
        self,
        name: str | None,
        parts: Callable[[Tensor], Iterator[tuple[Tensor, int, Tensor]]],
        value: float = 0.0,
        draw: bool = False,
    ) -> None:
        """Fill the parts of a tensor, each a view, a dimension and indices along it; clear the optimisers' there."""
        if name is None:
            return
        tensor = self._tensors[name]
        for view, dim, index in parts(tensor):
            if draw:
                shape = list(view.shape)
                shape[dim] = len(index)
                bound = math.sqrt(3) * (self._scales.get(name) or 1 / math.sqrt(3 * tensor[0].numel()))
                new = torch.empty(shape).uniform_(-bound, bound, generator=self._generator)
                view.index_copy_(dim, index, new.to(view))
            else:
                view.index_fill_(dim, index, value)
        for optimizer in self._optimizers:
            for state in optimizer.state.get(tensor, {}).values():
                if isinstance(state, Tensor) and state.shape == tensor.shape:
                    for view, dim, index in parts(state):
                        view.index_fill_(dim, index, 0)


def _columns(weight: Tensor, use: Use, units: list[int]) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Where a linear or convolution weight (out, in / groups, ...) takes in units: views, and columns of each."""
    chosen = set(units)
    per_group, outputs = len(use.units) // use.groups, len(weight) // use.groups
    for group in range(use.groups):
        mine = use.units[group * per_group : (group + 1) * per_group]
        columns = [column for column, unit in enumerate(mine) if unit in chosen]
        if columns:
            index = torch.tensor(columns, device=weight.device)
            yield weight[group * outputs : (group + 1) * outputs], 1, index
