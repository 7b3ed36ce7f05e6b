# ruff: noqa: ANN401
"""Which layers a ReLU's units come from and go to, by Torch-Pruning's dependency graph, and their removal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training_health.errors import UserError
from training_health.relu.activation_calls import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from training_health.relu.sites import ReLUCall, ReLUSites
from training_health.relu.window import shorten
from training_health.slimming.certificate import largest_pre_activation

# Autograd's names of what gives values within the range of its input, or 0, by their beginnings.
_KEEPS_RANGE = (
    "MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool", "Mean", "ConstantPad", "Clone", "View", "UnsafeView",
    "ReshapeAlias", "Alias", "Squeeze", "Unsqueeze", "Transpose", "Permute", "ToCopy",
)  # fmt: skip
_RELUS = {"relu": math.inf, "relu6": 6.0}

Range = tuple[Tensor, Tensor]  # per input channel or feature, the smallest and largest value on the window


class NotTraceableError(Exception):
    """Why units cannot be removed, in words."""


@dataclass
class Plan:
    """What is to be removed from a copy of the model: per feeding layer its units, and constants to fold."""

    units: dict[nn.Module, set[int]] = field(default_factory=dict)
    folds: dict[tuple[nn.Module, int], float] = field(default_factory=dict)  # (layer, its input): constant


class Wiring:
    """The layers around the ReLU sites of a model, from one forward pass with gradients.

    Args:
        model: In eval mode; its parameters are changed by `remove`, and their ``requires_grad`` until `restore`.
        batch: On the model's device.
        forward: How to run a batch.
        ignored: Sites, by qualified name, that were not counted.

    Raises:
        NotTraceableError: Torch-Pruning cannot follow the model, which is then of no more use.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        forward: Callable[[nn.Module, Any], Any],
        ignored: Iterable[str],
    ) -> None:
        import torch_pruning  # an extra's

        self._model, self._types = model, torch_pruning.ops.OPTYPE
        self._frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        self._names = {module: name for name, module in model.named_modules()}
        holders = Counter(parameter for module in self._names for parameter in module.parameters(recurse=False))
        self._shared = {parameter for parameter, number in holders.items() if number > 1}
        self._calls: Counter[nn.Module] = Counter()
        seen: dict[str, tuple[ReLUCall, Any]] = {}  # by qualified name, the first call with its autograd node
        self._inputs: set[Tensor] = set()
        self._fed: dict[nn.Module, Any] = {}  # the autograd node behind what a module was called with

        def note(call: ReLUCall) -> None:
            seen.setdefault(call.site, (call, call.output.grad_fn))

        def called(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._calls.update([module])
            self._fed[module] = getattr(next(iter(args), None), "grad_fn", None)

        def run(model: nn.Module, batch: Any) -> list[Tensor]:
            sites = ReLUSites(done=note)
            hooks = [module.register_forward_pre_hook(called) for module in self._names]
            sites.attach(model)
            sites.begin_pass()
            try:
                outputs = forward(model, self._watched(batch))
            finally:
                sites.detach()
                for hook in hooks:
                    hook.remove()
            return [output for output in tensors_of(outputs) if output.grad_fn is not None]

        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        graph = torch_pruning.DependencyGraph()
        try:
            with torch.enable_grad():
                self._graph = graph.build_dependency(model, batch, forward_fn=run, verbose=False)
        except Exception as error:  # such as a TypeError where an input is concatenated with what a layer gives
            problem = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
            raise NotTraceableError(f"Torch-Pruning cannot follow this model ({problem})") from error
        self._node_of = {node.grad_fn: node for node in self._graph.module2node.values()}
        names = [site for site in seen if site not in set(ignored)]
        self._seen = dict(zip(shorten(names), (seen[site] for site in names), strict=True))
        self._relus = {grad_fn: call.activation for call, grad_fn in seen.values()}

    def restore(self) -> None:
        """Freeze what was frozen."""
        for name in self._frozen:
            self._model.get_parameter(name).requires_grad_(False)

    def _watched(self, batch: Any) -> Any:
        """The batch with tensors that autograd tells from others, and that may be changed in place."""
        if isinstance(batch, Tensor) and batch.is_floating_point():
            leaf = batch.detach().clone().requires_grad_()
            self._inputs.add(leaf)
            return leaf.clone()
        if isinstance(batch, Mapping):
            return {key: self._watched(value) for key, value in batch.items()}
        return [self._watched(value) for value in batch] if isinstance(batch, (tuple, list)) else batch

    # ---- from a site to its layer

    def feeding_layer(self, site: str) -> nn.Module:
        """The layer whose outputs are the units of a site; one of them where an addition joins several.

        Raises:
            NotTraceableError: There is no such layer.
        """
        call, node = self._relu(site)
        found, waiting, visited = [], [node], set()
        while waiting:
            current = waiting.pop()
            if current in visited:
                continue
            visited.add(current)
            if not current.inputs:
                raise NotTraceableError("the layer that feeds it cannot be told")
            for source in current.inputs:
                if self._is_layer(source):
                    found.append(source.module)
                elif source.type in (self._types.BN, self._types.ELEMENTWISE):
                    waiting.append(source)
                else:
                    raise NotTraceableError(
                        f"the layer that feeds it cannot be told, behind {source.type.name.lower()}"
                    )
        layer = found[0]
        channels = self._graph.get_out_channels(layer)
        dim = call.output.dim() - 1 if isinstance(layer, nn.Linear) else 1
        if channels != call.output.shape[call.unit_dim] or call.unit_dim != dim:
            raise NotTraceableError(f"its units are not the outputs of {self._names[layer]}")
        return layer

    def _relu(self, site: str) -> tuple[ReLUCall, Any]:
        if site not in self._seen:
            raise NotTraceableError("it did not run in the first batch")
        call, grad_fn = self._seen[site]
        if grad_fn not in self._node_of:
            raise NotTraceableError("no output depends on it in a way that autograd follows")
        return call, self._node_of[grad_fn]

    def _is_layer(self, node: Any) -> bool:
        return node.type in (self._types.CONV, self._types.LINEAR, self._types.DEPTHWISE_CONV)

    # ---- what may be removed

    def plan(self, plan: Plan, layer: nn.Module, units: Iterable[int], ranges: Mapping[str, Range]) -> dict[int, str]:
        """Add units of a layer to a plan, but those that are not constant wherever they are used.

        Args:
            plan: Is added to.
            layer: A `feeding_layer`.
            units: Its outputs.
            ranges: Of every convolution and linear layer, by name, its inputs on the window.

        Returns:
            Why other units cannot go, by unit.
        """
        units = list(units)
        group = self._graph.get_pruning_group(layer, self._out_of(layer), units)
        blocked = self._blocked(group)
        if blocked:
            return dict.fromkeys(units, blocked)
        reasons: dict[int, str] = {}
        folds: dict[tuple[nn.Module, int], tuple[int, float]] = {}
        joined = [self._names[m] for m in self._producers(group) if m is not layer]
        for consumer, pairs in self._consumers(group):
            low, high = ranges[self._names[consumer]]
            for index, unit in pairs:
                smallest, largest = float(low[index]), float(high[index])
                if not abs(smallest) < math.inf or largest - smallest > 1e-6 * max(abs(smallest), abs(largest)):
                    reasons[unit] = f"{self._names[consumer]} gets other values than a constant of it"
                    if joined:
                        reasons[unit] += f", being joined by an addition or the like with {', '.join(joined)}"
                elif largest != 0 and not _takes_constant(consumer):
                    reasons[unit] = f"{self._names[consumer]} gets a constant of it, and pads with 0"
                elif largest != 0:
                    folds[consumer, index] = unit, largest
        kept = [unit for unit in units if unit not in reasons]
        plan.folds |= {key: constant for key, (unit, constant) in folds.items() if unit in kept}
        root = next((other for other in plan.units if other in self._producers(group)), layer)
        if kept:
            plan.units.setdefault(root, set()).update(kept)
        return reasons

    def _blocked(self, group: Any) -> str:
        """Why a group of layers cannot lose units; empty if it can."""
        types = self._types
        allowed = {types.BN, types.ELEMENTWISE, types.RESHAPE, types.CONCAT, types.SPLIT, types.UNBIND, types.SLICE}
        for dep, indices in group:
            node, module = dep.target, dep.target.module
            name = self._names.get(module, "")
            if node.type == types.OUTPUT:
                return "it is an output of the model"
            if self._is_layer(node) or node.type == types.BN:
                own = dict(module.named_parameters())
                groups = getattr(module, "groups", 1)
                if self._calls[module] > 1:
                    return f"{name} is used {self._calls[module]} times"
                if self._shared & set(own.values()):
                    return f"{name} shares its weights with another module"
                if not set(own) <= {"weight", "bias"}:
                    return f"{name} is parametrized"
                if groups > 1 and not groups == module.in_channels == module.out_channels:
                    return f"{name} is a grouped convolution"
                if self._is_layer(node) and self._is_out(dep) and sorted(indices) != sorted(group[0].idxs):
                    return f"{name} is joined with it in another order"
            elif node.type not in allowed:
                return f"{name or 'a part'} ({type(module).__name__}) uses its units together"
        return ""

    def _is_out(self, dep: Any) -> bool:
        return self._graph.is_out_channel_pruning_fn(dep.handler)

    def _out_of(self, layer: nn.Module) -> Any:
        return self._graph.get_pruner_of_module(layer).prune_out_channels

    def _producers(self, group: Any) -> list[nn.Module]:
        return [dep.target.module for dep, _ in group if self._is_layer(dep.target) and self._is_out(dep)]

    def _consumers(self, group: Any) -> list[tuple[nn.Module, list[tuple[int, int]]]]:
        """Layers that add up the units, each with pairs of its input and the unit that this comes from."""
        found = []
        for item in group:
            target = item.dep.target
            if self._is_layer(target) and not self._is_out(item.dep):
                found.append((target.module, list(zip(item.idxs, item.root_idxs, strict=True))))
        return found

    # ---- the removal

    def remove(self, plan: Plan) -> dict[nn.Module, int]:
        """Carry a plan out; gives the unit that a layer keeps because it would have none left."""
        with torch.no_grad():
            for (layer, index), constant in plan.folds.items():
                _fold(layer, index, constant)
        kept = {}
        for layer, units in plan.units.items():
            chosen = sorted(units)
            group = self._graph.get_pruning_group(layer, self._out_of(layer), chosen)
            if not self._graph.check_pruning_group(group):
                kept[layer] = chosen.pop(0)
                group = self._graph.get_pruning_group(layer, self._out_of(layer), chosen)
            if chosen:
                group.prune()
        return kept

    # ---- for any input

    def certified(self, site: str, data: tuple[float, float], ranges: Mapping[str, Range]) -> set[int]:
        """The units of a site that are 0 for every input whose elements lie in ``data``."""
        bounds = self._bounds(self._relu(site)[1], data, ranges)
        return set() if bounds is None else set((bounds <= 0).nonzero().flatten().tolist())

    def _bounds(self, relu: Any, data: tuple[float, float], ranges: Mapping[str, Range]) -> Tensor | None:
        """What a ReLU's inputs are at most, by unit; None where that cannot be told."""
        node, norm = relu, None
        while not self._is_layer(node):
            if len(node.inputs) != 1:
                return None  # an addition
            (node,) = node.inputs
            if node.type == self._types.BN and norm is None and node.module.running_mean is not None:
                norm = node.module
            elif not self._is_layer(node) and not _keeps_range(node):
                return None
        layer, low, high = node.module, *self._input_range(node, data, ranges)
        low, high = min(low, 0.0), max(high, 0.0)  # padding
        seen = ranges[self._names[layer]]
        if isinstance(layer, TRANSPOSED_CONVOLUTIONS) or seen[0].min() < low or seen[1].max() > high:
            return None  # padded with something else
        return largest_pre_activation(layer.weight, layer.bias, low, high, norm)

    def _input_range(
        self,
        layer: Any,
        data: tuple[float, float],
        ranges: Mapping[str, Range],
    ) -> tuple[float, float]:
        """The range of a layer's inputs: the data's, or what a ReLU leaves."""
        unknown = -math.inf, math.inf
        # Not by the layer's own node: what autograd keeps of a linear layer differs by its input's shape and its bias.
        node = self._node_of.get(self._fed[layer.module])
        while node is not None and node.grad_fn not in self._relus:
            if self._is_layer(node) or not _keeps_range(node) or len(node.inputs) > 1:
                return unknown
            if not node.inputs:
                break
            (node,) = node.inputs
        if node is None or self._calls[layer.module] > 1:
            return unknown
        if node.grad_fn in self._relus:
            bounds = self._bounds(node, data, ranges)
            most = math.inf if bounds is None else max(0.0, float(bounds.max()))
            return 0.0, min(most, _RELUS.get(self._relus[node.grad_fn], math.inf))
        leaves = {getattr(source, "variable", None) for source, _ in node.grad_fn.next_functions}
        if not leaves & self._inputs:
            return unknown
        low, high = ranges[self._names[layer.module]]
        if low.min() < data[0] or high.max() > data[1]:
            found = f"{float(low.min()):.3g} to {float(high.max()):.3g}"
            name = self._names[layer.module]
            raise UserError(
                f"`certified_for` is {data[0]:g} to {data[1]:g}, and the inputs of {name} reach from {found}."
            )
        return data


@contextmanager
def watched_inputs(model: nn.Module) -> Iterator[dict[str, Range]]:
    """Note the range of every convolution's and linear layer's inputs."""
    ranges: dict[str, Range] = {}

    def note(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0].detach()
        dim = x.dim() - 1 if isinstance(module, nn.Linear) else 1
        others = [d for d in range(x.dim()) if d != dim]
        low, high = x.amin(dim=others), x.amax(dim=others)
        if name in ranges:
            low, high = torch.minimum(low, ranges[name][0]), torch.maximum(high, ranges[name][1])
        ranges[name] = low, high

    hooks = [
        module.register_forward_pre_hook(lambda module, args, name=name: note(name, module, args))
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, *CONVOLUTIONS))
    ]
    try:
        yield ranges
    finally:
        for hook in hooks:
            hook.remove()


def tensors_of(value: Any, depth: int = 5) -> list[Tensor]:
    """Every tensor that a model returned, also in mappings, sequences and objects."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        value = vars(value).values() if hasattr(value, "__dict__") and not isinstance(value, type) else ()
    return [tensor for part in value for tensor in tensors_of(part, depth - 1)] if depth else []


def _keeps_range(node: Any) -> bool:
    return node.grad_fn.name().startswith(_KEEPS_RANGE)


def _takes_constant(layer: Any) -> bool:
    """Whether an input that is constant adds the same to every output."""
    return isinstance(layer, nn.Linear) or not (isinstance(layer, TRANSPOSED_CONVOLUTIONS) or any(layer.padding))


def _fold(layer: Any, index: int, constant: float) -> None:
    """Add what a constant input gives to the bias."""
    if layer.bias is None:
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))
    layer.bias += constant * layer.weight[:, index].reshape(len(layer.weight), -1).sum(1)
