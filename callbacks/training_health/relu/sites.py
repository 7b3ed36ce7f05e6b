"""See every ReLU call of a model, module, functional and in-place alike, without changing the model."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from training_health.relu.activation_calls import (
    ACTIVATION_MODULES,
    RELU_BY_NUMBERS,
    Role,
    calls_no_activation,
    role_of,
)
from training_health.relu.feeds import Feed, Source
from training_health.relu.origins import DATA, FIRST, LATER, Origin, Origins
from training_health.torch_private import (
    ForcedEager,
    enter_mode,
    has_forward_hook,
    inside_wrapper,
    is_compiled,
    is_transformed,
    leave_mode,
    own_method,
    watch_scripted,
    wrap,
    wrap_compiled_call,
)


class ReLUCall(NamedTuple):
    """One ReLU call of a forward pass."""

    site: str  # qualified name of the module it was made for; ":2" for its second call in the pass
    activation: str
    input: Tensor
    output: Tensor  # the input itself, still as it is, of a call in place
    unit_dim: int
    derived: bool  # `unit_dim` was followed from the weights; else it is a guess
    first_layer: bool  # its inputs do not change during training: data through at most one layer
    feed: Feed | None = None  # the layer with weights before it, where that could be followed
    part_of: str = ""  # the site that it is of, if each forward of the module around it takes a part of the batch


class _Frame(NamedTuple):
    """A module whose forward is running."""

    name: str = ""
    is_activation: bool = False
    is_metric: bool = False  # what runs inside is not the network's
    may_be_loss: bool = False  # it has no weights


class _Hook(partial[None]):
    """A module's hook, which does nothing in a copy of the module, in memory or in a file."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return getattr, ("", "__init__")  # takes any arguments, gives None, and a file with it needs no package of ours


class _Shared:
    """What all watchers share: attributes of their class would cost Python, at each change, all it cached of it."""

    def __init__(self) -> None:
        self.repeating: ReLUSites | None = None
        self.seeing = False  # one of them looks at a call: what it calls itself is not the network's


_shared = _Shared()


class ReLUSites(TorchFunctionMode):
    """A torch-function mode that reports each ReLU call between ``begin_pass`` and ``end_pass``.

    The mode sees every function of torch that is called while it is on torch's stack; outside a pass it is not there
    and costs nothing. Hooks on the modules, between ``attach`` and ``detach``, tell it on whose behalf a function is
    called. What is compiled runs eagerly in a pass. While a part runs whose inside cannot be seen, the mode leaves the
    stack, so that the part neither fails nor is compiled again because of it.

    torch's attention and `nn.TransformerEncoderLayer` have a fused way for evaluation, which a mode on the stack would
    switch off. They take it with the mode off, so that the model's values stay the same to the last bit; the layer's
    ReLU is then seen in a second run of the layer, whose output is thrown away.

    Args:
        report: Called with every `ReLUCall`, before one in place; runs with the mode off. Where it returns True, the
            next pass looks at the range of the inputs of the layer before this ReLU, as the first pass does for all.
        eager: Whether what was compiled by ``torch.compile`` runs eagerly in a pass, to be seen (torch 2.6).
        done: Called with every `ReLUCall` when its output is there; must not raise.

    Attributes:
        origins: What is known of the latest pass.
        never_zero: Activation by site.
        unwatched: Reason by name.
        opaque: The part of ``unwatched`` that hides calls altogether.

    >>> seen = []
    >>> sites, net = ReLUSites(seen.append), nn.Sequential(nn.Linear(3, 5), nn.ReLU())
    >>> sites.attach(net)
    >>> sites.begin_pass(); _ = net(torch.ones(2, 3)); sites.end_pass()
    >>> sites.detach()
    >>> seen[0].site, seen[0].output.shape, seen[0].unit_dim
    ('1', torch.Size([2, 5]), 1)
    """

    def __init__(
        self,
        report: Callable[[ReLUCall], bool | None] | None = None,
        eager: bool = True,
        done: Callable[[ReLUCall], object] | None = None,
    ) -> None:
        super().__init__()
        self.never_zero: dict[str, str] = {}
        self.unwatched: dict[str, str] = {}
        self.opaque: dict[str, str] = {}
        self.origins = Origins()
        self._report, self._eager, self._done = report, eager and ForcedEager.possible, done
        self._undo: list[Callable[[], None]] = []
        self._passing, self._thread = False, 0  # between `begin_pass` and `end_pass`; in which thread
        self._opaque_depth = 0  # opaque parts whose forward is running
        self._on_stack = False  # the mode is on torch's stack: a pass is running, and no opaque part in it
        # Modes of the network that lay above it there when it left; None: it was not there, as while it handles a call.
        self._above: int | None = 0
        # With the calls in that forward, by name; None of an activation module.
        self._frames: list[tuple[_Frame, dict[str, int] | None]] = []
        self._part_of = ""  # of the latest call that was named
        self._calls: dict[str, int] = {}  # of this pass, by name
        self._ran: set[str] = set()  # modules of this pass
        # Sites of this pass outside of all modules' forward, not right behind a layer: how many layers came before.
        self._outside: dict[str, int] = {}
        self._led: set[str] = set()  # of such sites, those that led to a layer in any pass
        self._elsewhere: set[str] = set()  # modules that ran in another thread
        self._ranged: set[int] | None = None  # the layers' calls whose inputs' range the next pass looks at; None: all
        self._guess = 1  # the dimension of the latest features, for what they cannot be followed to

    def attach(self, root: nn.Module) -> None:
        """Learn the modules' names; call `detach` whatever happens after."""
        self.detach()
        self._ranged = None
        inside: set[nn.Module] = set()  # a fused layer's parts, which may have no hook
        for name, module, reason in _walk_visible(root, self._eager):
            if reason is not None:
                self._hide(name or type(root).__name__, reason)
                if name:  # a root that is compiled as a whole: nothing is hooked, and no pass watched
                    self._around(name, module, partial(self._count_opaque, 1), partial(self._count_opaque, -1))
            elif _is_stock(module, nn.MultiheadAttention):
                self._undo.append(wrap(module, "forward", self._run_hidden))
            elif isinstance(module, nn.TransformerEncoderLayer) and _is_stock(module, nn.TransformerEncoderLayer):
                inside.update(module.modules())
                self._undo.append(wrap(module, "forward", partial(self._run_twice, module, _Frame(name))))
            elif module not in inside and (name == "" or not calls_no_activation(module)):
                metric = getattr(sys.modules.get("torchmetrics"), "Metric", ())
                may_be_loss = name != "" and next(module.parameters(), None) is None
                frame = _Frame(name, isinstance(module, ACTIVATION_MODULES), isinstance(module, metric), may_be_loss)
                self._around(name, module, partial(self._enter, frame), partial(self._leave, frame))
                stock = _is_stock(module, nn.TransformerEncoder)
                if stock and all(
                    _is_stock(layer, nn.TransformerEncoderLayer) for layer in module.get_submodule("layers").children()
                ):
                    self._undo.append(wrap(module, "forward", self._run_hidden))
        if self._undo:
            self._undo += watch_scripted(self._see_scripted)

    def detach(self) -> None:
        """Remove every hook and leave torch's mode stack; safe to call at any time and twice."""
        self.end_pass()
        while self._undo:
            self._undo.pop()()

    def begin_pass(self) -> None:
        """Start to watch one forward pass."""
        self.end_pass()
        self._frames.clear()
        self._calls.clear()
        self._ran.clear()
        self._outside.clear()
        self.origins.clear(self._ranged)
        self._ranged = set()
        self._opaque_depth, self._above, self._guess = 0, 0, 1
        self._passing, self._thread = bool(self._undo), threading.get_ident()
        if self._passing and self._eager:
            ForcedEager.enter()
        self._enter_or_leave()

    def end_pass(self) -> None:
        """Stop to watch."""
        if self._passing and self._eager:
            ForcedEager.leave()
        for site, layers in self._outside.items():
            leads = site in self.origins.uses or site not in self.origins.ended
            if leads and self.origins.layers > layers:
                self._led.add(site)
                self.unwatched.pop(site, None)
            elif site not in self._led:
                self.unwatched[site] = (
                    "it is called outside of every module's forward and leads to no layer, as in a loss"
                )
        self._outside.clear()
        self._passing = False
        self._enter_or_leave()

    def _enter_or_leave(self) -> None:
        """Be on torch's mode stack exactly where calls are to be seen."""
        wanted = self._passing and self._opaque_depth == 0
        if wanted != self._on_stack:
            self._on_stack = wanted
            if self._passing and not wanted:
                self.origins.hide()
            if not wanted:
                self._above = leave_mode(self)
            elif self._above is not None:
                enter_mode(self, self._above)

    # ---- whose call it is

    def _around(self, name: str, module: nn.Module, before: Callable[[], None], after: Callable[..., None]) -> None:
        """Have ``before`` and ``after`` called around every forward of ``module``, also around one that raises.

        ``after`` gets what a forward hook gets, or nothing.
        """

        def begin(*_: object) -> None:
            if self._in_own_thread():
                self._ran.add(name)
                before()
            else:
                self._miss(name)

        def end(*seen: object) -> None:  # module, inputs and output, where these are known
            if self._in_own_thread():
                after(*seen)

        undo = None if self._eager else wrap_compiled_call(module, begin, end)
        if undo is not None:
            self._undo.append(undo)
            return
        if isinstance(module, torch.jit.RecursiveScriptModule):  # takes no hook; `watch_scripted` sees its calls
            return
        enter = module.register_forward_pre_hook(_Hook(begin))
        leave = module.register_forward_hook(_Hook(end), always_call=True)
        self._undo += [enter.remove, leave.remove]

    def _in_own_thread(self) -> bool:
        """Whether this is the pass's thread, the only one in which torch has the mode; True outside a pass."""
        return threading.get_ident() == self._thread or not self._passing

    def _miss(self, name: str) -> None:
        """Take note that a module runs in another thread, where it is not seen."""
        self.origins.lose()
        inside = any(not whole or name.startswith(f"{whole}.") for whole in [*self._elsewhere])
        if name not in self._ran and not inside:  # one that has run is taken to run once more, as in a backward pass
            self._elsewhere.add(name)
            self._hide(name or "the network", "it runs in another thread")

    def _enter(self, frame: _Frame) -> None:
        self._frames.append((frame, None if frame.is_activation else {}))

    def _leave(self, frame: _Frame, *seen: object) -> None:
        while self._frames and self._frames.pop()[0] is not frame:
            pass  # frames that Ctrl-C left
        if frame.may_be_loss and seen and isinstance(seen[-1], Tensor) and not seen[-1].dim():
            for site in self.origins.feeds:
                if site.startswith(f"{frame.name}."):
                    self.unwatched[site] = f"it is part of a loss: {frame.name} has no weights and gives one number"

    def _count_opaque(self, change: int, *_: object) -> None:
        self._opaque_depth += change
        self.origins.lose()
        self._enter_or_leave()

    def _name(self, function: str) -> str | None:
        """Name the call in progress; None where it does not belong to the network."""
        frame, inside = _Frame(), None
        for frame, calls in self._frames:
            if frame.is_metric:
                return None
            inside = inside if calls is None else calls
        name = frame.name if frame.is_activation and frame.name else f"{frame.name}.{function}".lstrip(".")
        count = place = self._calls[name] = self._calls.get(name, 0) + 1
        if inside is not None:
            place = inside[name] = inside.get(name, 0) + 1
        self._part_of = name if place == 1 else f"{name}:{place}"
        return name if count == 1 else f"{name}:{count}"

    # ---- parts with a fused way, which a mode on the stack would switch off

    @contextmanager
    def _depth(self, depth: int) -> Iterator[None]:
        before, self._opaque_depth = self._opaque_depth, depth
        self._enter_or_leave()
        try:
            yield
        finally:
            self._opaque_depth = before
            self._enter_or_leave()

    def _run_hidden(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if not self._passing:
            return forward(*args, **kwargs)
        if not self._in_own_thread():
            self.origins.lose()
            return forward(*args, **kwargs)
        with self._depth(self._opaque_depth + 1):
            output = forward(*args, **kwargs)
        self.origins.note(output, Origin(LATER, -1))
        return output

    def _run_twice(
        self,
        layer: nn.TransformerEncoderLayer,
        frame: _Frame,
        forward: Callable[..., Any],
        src: Tensor,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        if not self._passing:
            return forward(src, *args, **kwargs)
        if not self._in_own_thread():
            self._miss(frame.name)
            return forward(src, *args, **kwargs)
        self._ran.add(frame.name)
        hooked = has_forward_hook(*layer.modules())
        known = layer.activation_relu_or_gelu and layer.self_attn.batch_first and not layer.training
        self._enter(frame)
        try:
            if hooked or not known or torch.is_grad_enabled():
                with self._depth(0):
                    return forward(src, *args, **kwargs)  # has no fused way now
            output = self._run_hidden(forward, src, *args, **kwargs)
            if layer.activation_relu_or_gelu == 2:
                self.never_zero[f"{frame.name}.gelu".lstrip(".")] = "gelu"
                return output
            calls = self._calls.copy()
            try:
                # A nested tensor holds its examples in full length each; they count as calls of the same site.
                for example in src.unbind() if src.is_nested else [src]:
                    self._calls = calls.copy()
                    _shared.repeating = self
                    with self._depth(0):
                        type(layer).forward(layer, example[None] if src.is_nested else example, *args, **kwargs)
            except Exception as error:
                self.unwatched[frame.name or "relu"] = f"its fused evaluation could not be repeated: {error}"
            finally:
                _shared.repeating = None
            return output
        finally:
            self._leave(frame)

    # ---- what the call is

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - what the wrapped function returns
        kwargs = kwargs or {}
        if _shared.seeing or _shared.repeating not in (None, self):
            return func(*args, **kwargs)  # the layer runs once more for another watcher, or that watcher counts
        if args and (_named(getattr(func, "__name__", "")).changes_its_input or kwargs.get("inplace") is True):
            call = self._try_to_see(func, args, kwargs, args[0])  # what goes into a ReLU is gone behind it
            output = func(*args, **kwargs)
        else:
            output = func(*args, **kwargs)
            call = self._try_to_see(func, args, kwargs, output)
        if call is not None and self._done is not None:
            _shared.seeing = True
            try:
                self._done(call)
            finally:
                _shared.seeing = False
        return output

    def _try_to_see(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: object
    ) -> ReLUCall | None:
        """Follow a call; give it if it is a ReLU's that was reported."""
        _shared.seeing = True
        try:
            return self._see(func, args, kwargs, output)
        except Exception:  # a part of torch that nobody thought of must not end the run
            self.origins.lose()
            return None
        finally:
            _shared.seeing = False

    def _see(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: object
    ) -> ReLUCall | None:
        name = _named(getattr(func, "__name__", "")).name
        role, x = role_of(func, args, kwargs), args[0] if args else kwargs.get("input")
        if role is not None and role.kind == "weights":
            self._see_layer(name, role, args, kwargs, output)
            return None
        plain = role is not None and role.kind == "relu"
        if role is None and (written_out := self.origins.rectified(name, args, kwargs)) is not None:
            role, x = RELU_BY_NUMBERS, written_out
        if role is not None and role.kind == "relu" and isinstance(output, Tensor) and _is_exotic(output):
            if (self._frames or not role.by_numbers) and (site := self._name(role.name)) is not None:
                self.unwatched[site] = "its output is a nested, sparse, quantised or MKL-DNN tensor"
            self.origins.lose()
            return None
        before = self.origins.of(x) if role is not None and isinstance(x, Tensor) else Origin(DATA)
        origin = None
        if plain and isinstance(x, Tensor) and isinstance(output, Tensor):
            origin = self.origins.keep(x, before, output)
        if origin is None:
            origin = self.origins.follow(name, role, args, kwargs, output)
        if role is None:
            return None
        call = None
        if role.by_numbers and (not self._frames or origin.level < FIRST):
            pass
        elif role.kind == "uncounted":  # outside of modules it may be anything
            if self._frames and (site := self._name(name)) is not None:
                self.unwatched[site] = role.reason
        elif (site := self._name("relu" if role.name == "hardtanh" else role.name)) is not None:
            if role.kind == "never zero":
                self.never_zero[site] = role.name
            elif isinstance(output, Tensor) and output.is_floating_point() and isinstance(x, Tensor):
                feed = before.feed if x.shape == output.shape else None
                call = self._see_relu(site, role.name, x, output, origin, feed)
                if call is not None and not self._frames and feed is None:  # else another reason stands
                    self._outside[site] = self.origins.layers
        if role.kind == "relu" and (call is None or before.source is not None):
            self.origins.take([before], f"`{name}` takes its values")
        return call

    def _see_layer(self, name: str, role: Role, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        origin = None
        if role.feature_dim is not None and not kwargs and isinstance(output, Tensor):
            origin = self.origins.through_layer(name, role.feature_dim, args, output)
        if origin is None:
            origin = self.origins.follow(name, role, args, kwargs, output)
        self._guess = 1 if origin.feature_dim in (None, 1) else -1

    def _see_relu(
        self, site: str, activation: str, x: Tensor, output: Tensor, origin: Origin, feed: Feed | None
    ) -> ReLUCall | None:
        try:
            if is_transformed(output):
                raise ValueError("it runs inside a transform of torch.func, such as vmap")
            if output.dim() < 2:
                raise ValueError("its output has one dimension, which leaves no unit to tell apart")
            # (N, F): each column is a unit, unless their dimension is known to be gone.
            derived = not origin.guessed and (origin.feature_dim is not None or output.dim() == 2)
            dim = origin.feature_dim if derived or origin.guessed else self._guess
            dim = 1 if dim is None else dim % output.dim()
            first = origin.level <= FIRST
            affine = feed if feed is not None and feed.affine else None
            call = ReLUCall(site, activation, x, output, dim, derived, first, affine, self._part_of)
            if self._report is not None and self._report(call) and affine is not None and self._ranged is not None:
                self._ranged.add(affine.call)
            self.origins.feeds[site] = feed
            if derived:
                self.origins.mark(output, origin, Source(site, output.shape[dim], dim))
            return call
        except Exception as error:  # an exotic tensor must not end the run
            self.unwatched[site] = f"its output could not be counted: {error}"
            return None

    def _see_scripted(self, function: str, hides_relu: bool) -> None:
        here = self._in_own_thread()
        if not self._passing or (here and not self._on_stack):  # a part runs that is named as a whole
            return
        if hides_relu:
            frames = self._frames[-1:] if here else []
            name = ".".join([*[frame.name for frame, _ in frames if frame.name], function])
            self._hide(name, "a TorchScript function")
        if hides_relu or not here:
            self.origins.lose()
        else:
            self.origins.hide()

    def _hide(self, name: str, reason: str) -> None:
        self.opaque[name] = self.unwatched[name] = reason


class _Named(NamedTuple):
    """A function's name, without underscores and that of an overload: ``relu`` for ``aten.relu_.default``."""

    name: str
    changes_its_input: bool  # its first argument, as ``relu_`` and ``x[mask] = 0`` do


@cache
def _named(name: str) -> _Named:
    name = name.partition(".")[0]
    in_place = name in ("__setitem__", "__imul__") or (name.endswith("_") and not name.startswith("__"))
    return _Named(name.strip("_"), in_place)


def _is_exotic(tensor: Tensor) -> bool:
    """Whether a tensor has no strides, or numbers that stand for others: neither is counted."""
    return tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized


def _is_stock(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether ``module`` runs torch's own forward, apart from another watcher's wrapper."""
    return isinstance(module, kind) and own_method(module.forward) is kind.forward


def _why_opaque(module: nn.Module, eager: bool) -> str | None:
    """Say in words why calls inside ``module`` cannot be watched, or None if they can."""
    if not eager and is_compiled(module):
        return "compiled with torch.compile"
    if isinstance(module, torch.jit.ScriptModule):
        return "a TorchScript module"
    if isinstance(module, (nn.RNN, nn.RNNCell)) and module.nonlinearity == "relu":
        return "a fused RNN with ReLU"
    if type(module).__module__.startswith("torch.ao.nn.intrinsic.quantized") and "ReLU" in type(module).__name__:
        return "a fused quantised layer with ReLU"
    return None


def _walk_visible(
    module: nn.Module, eager: bool, name: str = "", seen: set[nn.Module] | None = None
) -> Iterator[tuple[str, nn.Module, str | None]]:
    """Walk as ``named_modules`` does, not into opaque parts; yields name, module and the reason if it is opaque.

    The wrapper that ``torch.compile`` puts around a module is passed over: what it holds has its name.
    """
    seen = set() if seen is None else seen
    if module in seen:
        return
    seen.add(module)
    reason = _why_opaque(module, eager)
    wrapped = inside_wrapper(module) if eager else None
    if wrapped is not None:
        yield from _walk_visible(wrapped, eager, name, seen)
        return
    yield name, module, reason
    if reason is None:
        for child_name, child in module.named_children():
            yield from _walk_visible(child, eager, f"{name}.{child_name}".lstrip("."), seen)
