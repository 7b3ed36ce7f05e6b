"""Initialisations that look at data: each unit fires on half of its inputs, or each layer's output has variance 1."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from training_health.inspection import run_batch, to_device, untouched
from training_health.relu.activation_calls import CONVOLUTIONS, role_of
from training_health.torch_private import ForcedEager

Forward = Callable[[nn.Module, Any], Any]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_OTHER_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm)
_UNITS_FIRST = (*CONVOLUTIONS, *_BATCH_NORMS, *_OTHER_NORMS)  # (N, units, ...)
_UNITS_LAST = (nn.Linear, nn.LayerNorm)  # (N, ..., units)


@dataclass(frozen=True)
class DataInitialization:
    """What `median_bias` or `lsuv` did.

    Attributes:
        layers: Value reached by name of layer, in forward order: for `median_bias` the activity of the unit that is
            farthest from half, for `lsuv` the variance of the output.
        skipped: Reason by name of each layer with weights that was left as it was.
    """

    layers: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def median_bias(model: nn.Module, batches: Iterable[Any], *, forward: Forward | None = None) -> DataInitialization:
    r"""Set biases so that each unit fires on half of its inputs.

    Layer after layer in forward order, :math:`b_j \leftarrow b_j - \mathrm{median}(z_j)`, where :math:`z_j` is what
    the activation gets of unit j, over all examples and positions. Where many :math:`z_j` equal the median, as over
    the blank background of images, the threshold lies between two values, so that the fraction above it is as near to
    half as it can be. Weights stay as they are.

    A unit of a ReLU whose inputs are not centred starts far from half: one that fires on nothing never learns, one
    that fires on everything is linear. The layer whose bias is set is the last one before the activation: the
    normalisation, if there is one between, and after a residual addition that of the branch. Activations are known as
    modules and as functions: the ReLU family, GELU, SiLU and the like. A layer is skipped, and named with the reason,
    where no such activation follows, it runs more than once in a pass, has no bias of its own to train, or where a
    change of its bias does not reach the activation as it is.

    Runs in eval mode, without gradients; batch normalisations use their batch's statistics, as in training. Before
    they have seen some training batches, dead units counted in eval mode say nothing of such a model. Buffers, modes
    and random generators are put back. On several processes, call it on each with the same batches before the
    model is wrapped. Results depend on the number of threads as far as torch's own do, in their last bits.

    Cost: one pass over the first batch; then for each layer one over all batches, whose values of one activation are in
    memory together, and one more over the first.

    Args:
        model: Any module, on any device.
        batches: Some hundred examples without augmentation, such as ``itertools.islice(loader, 10)``; all are held in
            memory. A batch is moved to the model's device.
        forward: How to run a batch, as ``forward(model, batch)``. Default: as for `inspect`.

    Returns:
        What was set, with the activity of the unit farthest from half, and what was skipped.

    Raises:
        ValueError: Without a batch.

    Example::

        >>> import torch
        >>> from torch import nn
        >>> from training_health import median_bias
        >>> net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
        >>> _ = nn.init.ones_(net[0].weight), nn.init.zeros_(net[0].bias)
        >>> median_bias(net, [torch.tensor([[1.0], [2.0], [4.0], [5.0]])]).skipped
        {'2': 'no activation that is known follows it'}
        >>> net[0].bias  # 3 lies in the middle
        Parameter containing:
        tensor([-3.], requires_grad=True)
    """
    done = DataInitialization()
    with _ready(model, batches, forward) as watch:
        for name, layer in watch.layers(_UNITS_FIRST + _UNITS_LAST, "bias", done.skipped):
            reached = _centre(watch, layer) if name in watch.followed else "no activation that is known follows it"
            if isinstance(reached, str):
                done.skipped[name] = reached
            else:
                done.layers[name] = reached
    return done


def _centre(watch: _Watch, layer: Any) -> float | str:  # noqa: ANN401
    """Set a layer's bias; the activity of the unit that is farthest from half, or why the bias stays as it is."""
    values = watch.inputs_of_activation(layer, watch.batches)
    units, dim = layer.bias.numel(), 1 if isinstance(layer, _UNITS_FIRST) else -1
    if any(value.dim() < 2 or value.size(dim) != units for value in values):
        return "what the activation gets is not laid out in this layer's units"
    together = torch.cat([value.movedim(dim, 0).flatten(1) for value in values], dim=1)  # (units, values)
    if not together.isfinite().all():
        return "what the activation gets is not finite"
    if not together.numel():
        return "the batches hold no example"
    shift = torch.tensor([_split_in_half(unit.double()) for unit in together]).to(layer.bias)
    before = layer.bias.clone()
    layer.bias -= shift
    shifts = (before.double() - layer.bias.double()).tolist()  # as far as the bias has digits for them
    reached = [float((unit.double() > by).double().mean()) for unit, by in zip(together, shifts, strict=True)]
    del together
    moved = watch.inputs_of_activation(layer, watch.batches[:1])[0].movedim(dim, -1)
    expected = values[0].movedim(dim, -1) - shift
    relative = max(1e-3, 4 * torch.finfo(moved.dtype).eps)
    absolute = relative * max(float(expected.abs().max()), float(shift.abs().max()))
    if not torch.allclose(moved, expected, rtol=relative, atol=absolute):
        layer.bias.copy_(before)
        return "a change of its bias does not reach the activation as it is"
    return max(reached, key=lambda activity: abs(activity - 0.5))


@torch.no_grad()
def lsuv(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    seed: int | None = 0,
    tolerance: float = 0.1,
    max_iterations: int = 10,
    forward: Forward | None = None,
) -> DataInitialization:
    r"""Layer-sequential unit-variance initialisation (Mishkin and Matas 2015, arXiv 1511.06422).

    Every convolution and linear layer gets orthonormal weights and a bias of zero, unless that is not trained. Then,
    layer after layer in forward order, its weight is divided by :math:`\sqrt{\mathrm{Var}(B)}` until
    :math:`|\mathrm{Var}(B) - 1|` is below the tolerance, where :math:`B` is the layer's whole output over all examples,
    units and positions. The paper's variance is that about the mean: with inputs that are not centred, units keep means
    far from zero.

    A layer is skipped, and named with the reason, where it runs more than once in a pass or not at all, has no weight
    of its own to train, or where its output has no variance. What is put back, and how it runs on several processes and
    threads: as for `median_bias`.

    Cost: for each layer two passes over the batches, seldom more.

    Args:
        model: Any module, on any device.
        batches: As for `median_bias`; the paper finds that their number hardly matters.
        seed: Of the orthonormal weights, drawn on the CPU. None: weights and biases are
            kept, and only scaled.
        tolerance: Largest distance of the variance from 1.
        max_iterations: Most divisions of one layer.
        forward: As for `median_bias`.

    Returns:
        The layers that were set, with the variance reached, and what was skipped.

    Raises:
        ValueError: Without a batch; ``tolerance`` is negative, or ``max_iterations`` below 1.

    Example::

        >>> import torch
        >>> from torch import nn
        >>> from training_health import lsuv
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
        >>> done = lsuv(net, [torch.rand(100, 3)])
        >>> {name: round(variance, 3) for name, variance in done.layers.items()}
        {'0': 1.0, '2': 1.0}
    """
    if not tolerance >= 0 or max_iterations < 1:
        given = f"tolerance={tolerance!r}, max_iterations={max_iterations!r}"
        raise ValueError(f"`lsuv({given})`: give a tolerance of 0 or more, and at least 1 iteration.")
    done = DataInitialization()
    with _ready(model, batches, forward) as watch:
        layers = list(watch.layers((*CONVOLUTIONS, nn.Linear), "weight", done.skipped))
        before = [[part.clone() for part in (layer.weight, layer.bias) if part is not None] for _, layer in layers]
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # put back at the end
            for _, layer in layers:
                layer.weight.copy_(nn.init.orthogonal_(torch.empty(layer.weight.shape, dtype=torch.float32)))
                if layer.bias is not None and layer.bias.requires_grad:
                    layer.bias.zero_()
        for (name, layer), kept in zip(layers, before, strict=True):
            variance = watch.output_variance(layer)
            for _ in range(max_iterations):
                if not 0 < variance < math.inf or abs(variance - 1) < tolerance:
                    break
                layer.weight /= math.sqrt(variance)
                variance = watch.output_variance(layer)
            if not 0 < variance < math.inf:
                for part, values in zip((layer.weight, layer.bias), kept, strict=False):
                    part.copy_(values)
                done.skipped[name] = f"the variance of its output is {variance}"
                continue
            done.layers[name] = variance
    return done


def _split_in_half(values: Tensor) -> float:
    """The threshold that leaves nearest to half of ``values`` (M,) above it.

    It lies half way between two values; equal values cannot be split: their threshold is 0.
    """
    count = len(values)
    median = values.kthvalue((count + 1) // 2).values
    below, above = values[values < median], values[values > median]
    ties_fire = (count - len(below)) / count
    ties_do_not = len(above) / count
    if len(below) and abs(ties_fire - 0.5) <= abs(ties_do_not - 0.5):
        return (below.max().item() + median.item()) / 2
    if len(above):
        return (above.min().item() + median.item()) / 2
    return 0.0


@contextmanager
def _ready(model: nn.Module, batches: Iterable[Any], forward: Forward | None) -> Iterator[_Watch]:
    """Put the model into the state in which it is measured."""
    with untouched(model) as device:
        for module in model.modules():
            if isinstance(module, _BATCH_NORMS):
                module.training = True
        held = [to_device(batch, device) for batch in batches]
        if not held:
            raise ValueError("There is no batch: give some hundred examples.")
        ForcedEager.enter()
        try:
            yield _Watch(model, held, forward or run_batch)
        finally:
            ForcedEager.leave()


class _Watch(TorchFunctionMode):
    """Sees which layers run and what activations get."""

    def __init__(self, model: nn.Module, batches: list[Any], forward: Forward) -> None:
        super().__init__()
        self.batches = batches
        self.followed: set[str] = set()  # names of layers behind which an activation came next
        self._model, self._forward = model, forward
        self._on_activation: Callable[[Tensor], None] = lambda _: None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        role = role_of(func, args, dict(kwargs or {}))
        if role is not None and role.kind != "weights" and not role.by_numbers:
            value = args[0] if args else dict(kwargs or {}).get("input")
            if isinstance(value, Tensor):
                self._on_activation(value)
        return func(*args, **(kwargs or {}))

    def layers(
        self, kinds: tuple[type[nn.Module], ...], parameter: str, skipped: dict[str, str]
    ) -> Iterator[tuple[str, Any]]:
        """The layers that can be set, in forward order; says why the others cannot."""
        modules = {name: module for name, module in self._model.named_modules() if isinstance(module, kinds)}
        calls: Counter[str] = Counter()
        last: list[str] = []

        def called(name: str) -> None:
            calls[name] += 1
            last[:] = [name]

        def activated(_: Tensor) -> None:
            self.followed.update(last)
            last.clear()

        hooks = [m.register_forward_hook(lambda *_, name=name: called(name)) for name, m in modules.items()]
        self._run(hooks, self.batches[:1], activated)
        owners = Counter(
            id(own)
            for module in self._model.modules()
            for name, own in module.named_parameters(recurse=False)
            if name == parameter
        )
        for name in [*calls, *(name for name in modules if name not in calls)]:
            module = modules[name]
            own = dict(module.named_parameters(recurse=False)).get(parameter)
            if name not in calls:
                skipped[name] = "it does not run"
            elif calls[name] > 1:
                skipped[name] = f"it runs {calls[name]} times in a pass"
            elif own is None:
                skipped[name] = f"it has no {parameter} of its own"
            elif not own.requires_grad:
                skipped[name] = f"its {parameter} is not trained"
            elif owners[id(own)] > 1:
                skipped[name] = f"it shares its {parameter} with another layer"
            else:
                yield name, module

    def inputs_of_activation(self, layer: nn.Module, batches: list[Any]) -> list[Tensor]:
        """What the first activation after ``layer`` gets, of each batch, before it changes it in place."""
        values: list[Tensor] = []
        armed = False

        def called(*_: object) -> None:
            nonlocal armed
            armed = True

        def activated(value: Tensor) -> None:
            nonlocal armed
            if armed:
                values.append(value.detach().clone())
            armed = False

        self._run([layer.register_forward_hook(called)], batches, activated)
        return values

    def output_variance(self, layer: nn.Module) -> float:
        """Variance of all numbers in the output of ``layer``, over all batches."""
        sums: list[Tensor] = []

        def called(module: nn.Module, args: object, output: Tensor) -> None:
            values = output.detach().double()
            sums.append(torch.stack([values.sum(), values.square().sum(), values.new_tensor(values.numel())]))

        self._run([layer.register_forward_hook(called)], self.batches, lambda _: None)
        total, squares, count = torch.stack(sums).sum(0).tolist()
        return squares / count - (total / count) ** 2 if count else math.nan

    def _run(self, hooks: list[Any], batches: list[Any], on_activation: Callable[[Tensor], None]) -> None:
        self._on_activation = on_activation
        try:
            with self:
                for batch in batches:
                    self._forward(self._model, batch)
        finally:
            for hook in hooks:
                hook.remove()
