"""See every ReLU call of a model, module, functional and in-place alike, without changing the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torchmetrics import Metric

from training_health.relu.activation_calls import (
    ACTIVATION_MODULES,
    NOTED,
    SILENT_MODULES,
    feature_dim,
    immortal_kind,
    relu_kind,
    uncounted_reason,
)
from training_health.relu.opaque_parts import walk_visible


class ReLUCall(NamedTuple):
    """One ReLU call of a forward pass."""

    site: str  # qualified name of the module it was made for; ":2" for its second call in the pass
    activation: str
    output: Tensor
    unit_dim: int
    first_layer: bool  # at most one operation with weights ran before it: its inputs do not change during training


class ReLUSites(TorchFunctionMode):
    """A torch-function mode that reports each ReLU call between ``begin_pass`` and ``end_pass``.

    Outside a pass it is not on torch's mode stack and costs nothing. Between ``attach`` and ``detach`` the visible
    modules have a forward pre-hook and a forward hook that say on whose behalf a function is called; inner layers that
    never call an activation (torch's own convolutions, pools and their like) go without.

    Every call of a torch function costs microseconds while the mode is on, also those of losses, metrics and logging.
    So if the first pass after ``attach`` calls no activation and no operation with weights outside of modules, later
    ones watch the inside of modules only.

    Args:
        report: Called with every `ReLUCall`; runs with the mode off.
    """

    def __init__(self, report: Callable[[ReLUCall], None]) -> None:
        super().__init__()
        self.cannot_die: dict[str, str] = {}  # site: activation
        self.unwatched: dict[str, str] = {}  # name: reason
        self.opaque: dict[str, str] = {}  # the part of `unwatched` that hides calls altogether
        self._report = report
        self._undo: list[Callable[[], None]] = []
        self._active = self._paused = self._passing = False
        self._first_pass = True
        self._outside = False  # whether anything of interest happens outside of modules
        self._modules: list[tuple[str, bool] | None] = []  # name and "is an activation"; None inside a metric
        self._calls: Counter[str] = Counter()
        self._weighted = 0
        self._feature_dim = 1

    def attach(self, root: nn.Module) -> None:
        """Learn the modules' names; call `detach` whatever happens after."""
        self.detach()
        self._first_pass, self._outside = True, False
        for name, module, reason in walk_visible(root):
            if reason is not None:
                self.opaque[name or type(root).__name__] = self.unwatched[name or type(root).__name__] = reason
                self._step_aside_for(module)
                continue
            if "." in name and type(module) in SILENT_MODULES:
                continue  # its call is seen, and no site is named after it; an outer one's hooks open the pass
            frame = None if isinstance(module, Metric) else (name, isinstance(module, ACTIVATION_MODULES))
            enter = module.register_forward_pre_hook(partial(self._enter_module, frame))
            leave = module.register_forward_hook(partial(self._leave_module, frame))
            self._undo += [enter.remove, leave.remove]

    def detach(self) -> None:
        """Remove every hook and leave torch's mode stack; safe to call at any time and twice."""
        self.end_pass()
        while self._undo:
            self._undo.pop()()

    def begin_pass(self) -> None:
        """Start to watch one forward pass."""
        self._deactivate()
        self._paused = False
        self._modules.clear()
        self._calls.clear()
        self._weighted, self._feature_dim = 0, 1
        self._passing = True
        if self._first_pass or self._outside:
            self._activate()

    def end_pass(self) -> None:
        """Stop to watch."""
        self._first_pass &= not self._passing
        self._passing = False
        self._deactivate()

    def _deactivate(self) -> None:
        if self._active:
            self._active = False
            self.__exit__(None, None, None)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the wrapped function returns
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func in NOTED:  # most calls are none of ours: a batch makes a hundred
            self._outside |= not self._modules
            self._see(func, args, kwargs, output)
        return output

    def _see(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        if (dim := feature_dim(func)) is not None:
            self._weighted += 1
            self._feature_dim = dim
        elif (activation := relu_kind(func, args, kwargs)) is not None:
            self._see_relu(activation, output)
        elif (immortal := immortal_kind(func)) is not None:
            self._note(self.cannot_die, self._site(immortal), immortal)
        elif self._modules and (reason := uncounted_reason(func, args, kwargs)) is not None:
            self._note(self.unwatched, self._site(func.__name__), reason)

    def _note(self, where: dict[str, str], site: str | None, what: str) -> None:
        if site is not None:
            where[site] = what

    def _see_relu(self, activation: str, output: object) -> None:
        site = self._site("relu" if activation == "hardtanh" else activation)
        if site is None or not isinstance(output, Tensor) or not output.is_floating_point():
            return
        if output.dim() < 2:
            self.unwatched[site] = "its output has one dimension, which leaves no unit to tell apart"
            return
        dim = 1 if output.dim() == 2 else self._feature_dim % output.dim()
        try:
            self._report(ReLUCall(site, activation, output, dim, first_layer=self._weighted <= 1))
        except (RuntimeError, ValueError) as error:  # an exotic tensor must not end the run
            self.unwatched[site] = f"its output could not be counted: {error}"

    def _site(self, function: str) -> str | None:
        """Name the call in progress; None where it does not belong to the network."""
        if None in self._modules:
            return None
        name, is_activation = self._modules[-1] or ("", False) if self._modules else ("", False)
        name = name if is_activation and name else f"{name}.{function}" if name else function
        self._calls[name] += 1
        return name if self._calls[name] == 1 else f"{name}:{self._calls[name]}"

    def _enter_module(self, frame: tuple[str, bool] | None, module: nn.Module, args: object) -> None:
        self._modules.append(frame)
        if frame is not None and self._passing and not self._active and not self._paused:
            self._activate()

    def _leave_module(self, frame: tuple[str, bool] | None, module: nn.Module, args: object, output: object) -> None:
        while self._modules and self._modules.pop() is not frame:
            pass  # frames of modules that raised
        if not self._modules and not self._first_pass and not self._outside:
            self._deactivate()

    def _activate(self) -> None:
        self.__enter__()
        self._active = True

    def _pause(self) -> None:
        self._paused = self._active
        self._deactivate()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._activate()

    def _step_aside_for(self, module: nn.Module) -> None:
        """Leave the mode stack while an opaque module runs, so that it neither fails nor compiles anew for us."""
        compiled = getattr(module, "_compiled_call_impl", None)
        if compiled is None:
            enter = module.register_forward_pre_hook(lambda *_: self._pause())
            leave = module.register_forward_hook(lambda *_: self._resume())
            self._undo += [enter.remove, leave.remove]
            return

        # Hooks of such a module are compiled with it, so the call itself is wrapped.
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            self._pause()
            try:
                return compiled(*args, **kwargs)
            finally:
                self._resume()

        module._compiled_call_impl = call
        self._undo.append(lambda: setattr(module, "_compiled_call_impl", compiled))
