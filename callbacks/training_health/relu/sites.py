"""See every ReLU call of a model, module, functional and in-place alike, without changing the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchmetrics import Metric

from training_health.relu.activation_calls import ACTIVATION_MODULES, Role, calls_no_activation, role_of
from training_health.torch_private import is_compiled, wrap_compiled_call


class ReLUCall(NamedTuple):
    """One ReLU call of a forward pass."""

    site: str  # qualified name of the module it was made for; ":2" for its second call in the pass
    activation: str
    output: Tensor
    unit_dim: int
    first_layer: bool  # at most one operation with weights ran before it: its inputs do not change during training


class _Frame(NamedTuple):
    """A module whose forward is running."""

    name: str = ""
    is_activation: bool = False
    is_metric: bool = False  # what runs inside is not the network's


class ReLUSites(TorchFunctionMode):
    """A torch-function mode that reports each ReLU call between ``begin_pass`` and ``end_pass``.

    The mode sees every function of torch that is called while it is on torch's stack; outside a pass it is not there
    and costs nothing. Hooks on the modules, between ``attach`` and ``detach``, tell it on whose behalf a function is
    called. While a part runs whose inside cannot be seen, the mode leaves the stack, so that the part neither fails nor
    is compiled again because of it.

    Args:
        report: Called with every `ReLUCall`; runs with the mode off.

    >>> seen = []
    >>> sites, net = ReLUSites(seen.append), nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    >>> sites.attach(net)
    >>> sites.begin_pass(); _ = net(torch.ones(2, 3)); sites.end_pass()
    >>> sites.detach()
    >>> seen[0].site, seen[0].output.shape, seen[0].unit_dim
    ('1', torch.Size([2, 5]), 1)
    """

    def __init__(self, report: Callable[[ReLUCall], None]) -> None:
        super().__init__()
        self.never_zero: dict[str, str] = {}  # site: activation
        self.unwatched: dict[str, str] = {}  # name: reason
        self.opaque: dict[str, str] = {}  # the part of `unwatched` that hides calls altogether
        self._report = report
        self._undo: list[Callable[[], None]] = []
        self._passing = False  # between `begin_pass` and `end_pass`
        self._opaque_depth = 0  # opaque parts whose forward is running
        self._on_stack = False  # the mode is on torch's stack: a pass is running, and no opaque part in it
        self._frames: list[_Frame] = []
        self._calls: Counter[str] = Counter()  # of this pass, by name
        self._weighted = 0  # operations with weights in this pass
        self._feature_dim = 1  # of the latest one's output

    def attach(self, root: nn.Module) -> None:
        """Learn the modules' names; call `detach` whatever happens after."""
        self.detach()
        for name, module, reason in walk_visible(root):
            if reason is not None:
                self.opaque[name or type(root).__name__] = self.unwatched[name or type(root).__name__] = reason
                if name:  # a root that is compiled as a whole: nothing is hooked, and no pass watched
                    self._around(module, partial(self._count_opaque, 1), partial(self._count_opaque, -1))
            elif name == "" or not calls_no_activation(module):
                frame = _Frame(name, isinstance(module, ACTIVATION_MODULES), isinstance(module, Metric))
                self._around(module, partial(self._frames.append, frame), partial(self._leave, frame))

    def detach(self) -> None:
        """Remove every hook and leave torch's mode stack; safe to call at any time and twice."""
        self.end_pass()
        while self._undo:
            self._undo.pop()()

    def begin_pass(self) -> None:
        """Start to watch one forward pass."""
        self._frames.clear()
        self._calls.clear()
        self._weighted, self._feature_dim, self._opaque_depth = 0, 1, 0
        self._passing = bool(self._undo)
        self._enter_or_leave()

    def end_pass(self) -> None:
        """Stop to watch."""
        self._passing = False
        self._enter_or_leave()

    def _enter_or_leave(self) -> None:
        """Be on torch's mode stack exactly where calls are to be seen."""
        wanted = self._passing and self._opaque_depth == 0
        if wanted != self._on_stack:
            self._on_stack = wanted
            _ = self.__enter__() if wanted else self.__exit__(None, None, None)

    # ---- whose call it is

    def _around(self, module: nn.Module, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Have ``before`` and ``after`` called around every forward of ``module``, also around one that raises."""
        undo = wrap_compiled_call(module, before, after)
        if undo is not None:
            self._undo.append(undo)
            return
        enter = module.register_forward_pre_hook(lambda *_: before())
        leave = module.register_forward_hook(lambda *_: after(), always_call=True)
        self._undo += [enter.remove, leave.remove]

    def _leave(self, frame: _Frame) -> None:
        while self._frames and self._frames.pop() is not frame:
            pass  # frames that Ctrl-C left

    def _count_opaque(self, change: int) -> None:
        self._opaque_depth += change
        self._enter_or_leave()

    def _name(self, function: str) -> str | None:
        """Name the call in progress; None where it does not belong to the network."""
        if any(frame.is_metric for frame in self._frames):
            return None
        frame = self._frames[-1] if self._frames else _Frame()
        name = frame.name if frame.is_activation and frame.name else f"{frame.name}.{function}".lstrip(".")
        self._calls[name] += 1
        return name if self._calls[name] == 1 else f"{name}:{self._calls[name]}"

    # ---- what the call is

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the wrapped function returns
        output = func(*args, **(kwargs or {}))
        if (role := role_of(func, args, kwargs or {})) is not None:
            self._see(role, func.__name__, output)
        return output

    def _see(self, role: Role, function: str, output: object) -> None:
        if role.kind == "weights":
            self._weighted += 1
            self._feature_dim = role.feature_dim
        elif role.kind == "uncounted":  # outside of modules it may be anything: a clamp in a loss or a metric
            if self._frames and (site := self._name(function)) is not None:
                self.unwatched[site] = role.name
        elif (site := self._name("relu" if role.name == "hardtanh" else role.name)) is not None:
            if role.kind == "never zero":
                self.never_zero[site] = role.name
            elif isinstance(output, Tensor) and output.is_floating_point():
                self._see_relu(site, role.name, output)

    def _see_relu(self, site: str, activation: str, output: Tensor) -> None:
        if output.dim() < 2:
            self.unwatched[site] = "its output has one dimension, which leaves no unit to tell apart"
            return
        dim = 1 if output.dim() == 2 else self._feature_dim % output.dim()
        try:
            self._report(ReLUCall(site, activation, output, dim, first_layer=self._weighted <= 1))
        except (RuntimeError, ValueError) as error:  # an exotic tensor must not end the run
            self.unwatched[site] = f"its output could not be counted: {error}"


def why_opaque(module: nn.Module) -> str | None:
    """Say in words why calls inside ``module`` cannot be watched, or None if they can."""
    if is_compiled(module):
        return "compiled with torch.compile"
    if isinstance(module, torch.jit.ScriptModule):
        return "a TorchScript module"
    if isinstance(module, (nn.RNN, nn.RNNCell)) and module.nonlinearity == "relu":
        return "a fused RNN with ReLU"
    return None


def walk_visible(
    module: nn.Module, name: str = "", seen: set[nn.Module] | None = None
) -> Iterator[tuple[str, nn.Module, str | None]]:
    """Walk as ``named_modules`` does, not into opaque parts; yields name, module and the reason if it is opaque."""
    seen = set() if seen is None else seen
    if module in seen:
        return
    seen.add(module)
    reason = why_opaque(module)
    yield name, module, reason
    if reason is None:
        for child_name, child in module.named_children():
            yield from walk_visible(child, f"{name}.{child_name}".lstrip("."), seen)
