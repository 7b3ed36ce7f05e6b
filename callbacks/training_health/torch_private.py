"""What is used of torch's private parts: what is compiled, scripted or transformed, who watches, what schedulers hold.

Where a name below disappears, compiled and scripted parts count as ones without ReLU calls and every call as watched,
and a warning says so.
"""

import functools
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn, overrides
from torch.optim.lr_scheduler import ChainedScheduler, SequentialLR

_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_HOOKS = (*_FORWARD_HOOKS, "_backward_hooks", "_backward_pre_hooks")


@functools.cache  # once
def warn_renamed(name: str, consequence: str) -> None:
    """Warn that a private name of torch or Lightning is gone, and what follows."""
    warnings.warn(f"The installed version has no `{name}` any more: {consequence}.", stacklevel=3)


def is_compiled(module: nn.Module) -> bool:
    """Tell whether ``module`` is what ``torch.compile`` returned, was compiled in place, or holds a compiled function.

    ``_compiler_ctx`` is Lightning's mark on a LightningModule that was compiled before it reached the trainer.
    """
    dynamo = sys.modules.get("torch._dynamo")  # imported by whoever compiles; it takes seconds
    wrapper = getattr(dynamo, "OptimizedModule", ())
    if (dynamo and not wrapper) or not hasattr(nn.Module, "_compiled_call_impl"):
        warn_renamed("torch._dynamo.OptimizedModule", "ReLU calls in compiled modules are neither counted nor named")
    marks = ("_compiled_call_impl", "_compiler_ctx")
    return (
        isinstance(module, wrapper)
        or any(getattr(module, mark, None) is not None for mark in marks)
        or any(hasattr(value, "_torchdynamo_orig_callable") for value in vars(module).values() if callable(value))
    )


def inside_wrapper(module: nn.Module) -> nn.Module | None:
    """Give the module that ``torch.compile`` wrapped; None for one that it did not wrap."""
    return getattr(module, "_orig_mod", None) if is_compiled(module) else None


def is_transformed(tensor: Tensor) -> bool:
    """Tell whether a transform of ``torch.func`` (vmap, grad ...) stands behind the tensor."""
    try:
        return torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    except AttributeError:
        warn_renamed("is_functorch_wrapped_tensor", "ReLU calls within vmap are named for another reason")
        return False


def inner_schedulers(scheduler: object) -> list[Any]:
    """Give the schedulers that a sequential or chained one steps."""
    inner = getattr(scheduler, "_schedulers", None)
    if inner is None and isinstance(scheduler, (SequentialLR, ChainedScheduler)):
        warn_renamed("_schedulers", "a step of them in a validation hook is not undone")
    return list(inner or ())


class ForcedEager:
    """Has what is compiled run as it was written, from the first `enter` to the last `leave` of all monitors."""

    possible = hasattr(torch.compiler, "set_stance")  # torch 2.6
    _depth = 0
    _stance: Any = None

    @classmethod
    def enter(cls) -> None:
        """Start, if it is possible and anything in this process was compiled."""
        cls._depth += 1
        if cls.possible and cls._depth == 1 and "torch._dynamo" in sys.modules:
            cls._stance = torch.compiler.set_stance("force_eager")

    @classmethod
    def leave(cls) -> None:
        """Let compiled code run again."""
        cls._depth -= 1
        if cls._depth == 0 and cls._stance is not None:
            cls._stance.__exit__(None, None, None)
            cls._stance = None


def leave_mode(mode: overrides.TorchFunctionMode) -> int | None:
    """Take a mode off torch's stack, and nothing else: torch's own ``__exit__`` takes the top one, whichever it is.

    Returns how many of other kinds lay above it; None where it is not there, as while it handles a call.
    """
    modes = _modes()
    if modes is not None and mode not in modes:
        return None
    above = [] if modes is None else modes[len(modes) - modes[::-1].index(mode) :]
    _change_below(len(above), lambda: mode.__exit__(None, None, None))
    return sum(not isinstance(other, type(mode)) for other in above)


def enter_mode(mode: overrides.TorchFunctionMode, above: int) -> None:
    """Put a mode on torch's stack, below so many of other kinds: its own come and go in an order of their own."""
    modes, place = _modes() or [], 0
    while above and place < len(modes):
        place += 1
        above -= not isinstance(modes[-place], type(mode))
    _change_below(place, mode.__enter__)


def _modes() -> list[Any] | None:
    """The modes on torch's stack, the top one last; None where it cannot be asked."""
    stack = getattr(overrides, "_get_current_function_mode_stack", None)
    if stack is None:
        warn_renamed("_get_current_function_mode_stack", "a network's own mode may end where a part is not watched")
        return None
    return [*stack()]


def _change_below(above: int, change: Callable[[], object]) -> None:
    others = [overrides._pop_mode() for _ in range(above)]
    change()
    for other in reversed(others):
        overrides._push_mode(other)


class _Wrapper:
    """What `wrap` puts in the place of a method. A copy of the owner, also one in a file, has what was there before."""

    def __init__(self, owner: Any, name: str, around: Callable[..., Any]) -> None:  # noqa: ANN401
        self.inner, self.own = getattr(owner, name), name in vars(owner)
        self._owner, self._name, self._around = owner, name, around

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return self._around(self.inner, *args, **kwargs)

    def __get__(self, instance: object, _: type | None = None) -> Callable[..., Any]:
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (cast, (None, self.inner)) if self.own else (getattr, (self._owner, self._name))


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> Callable[[], None]:  # noqa: ANN401
    """Have ``around(inner, *args, **kwargs)`` called in the place of ``owner.name``; several may wrap the same.

    Returns what takes this wrapper off again, whichever came first.
    """
    wrapper = _Wrapper(owner, name, around)

    def undo() -> None:
        outer = vars(owner)[name]
        if outer is wrapper:
            setattr(owner, name, wrapper.inner) if wrapper.own else delattr(owner, name)
            return
        while outer.inner is not wrapper:
            outer = outer.inner
        outer.inner, outer.own = wrapper.inner, wrapper.own

    setattr(owner, name, wrapper)
    return undo


def own_method(function: Any) -> Any:  # noqa: ANN401
    """Give the function of the method that a wrapper of `wrap`, or more of them, stand before; None for others."""
    while isinstance(function, _Wrapper):
        function = function.inner
    return getattr(function, "__func__", None)


def wrap_compiled_call(
    module: nn.Module, before: Callable[[], None], after: Callable[[], None]
) -> Callable[[], None] | None:
    """Call ``before`` and ``after`` around every call of a module that was compiled in place, with its hooks.

    Returns what takes the wrapper off again; None where the module is not compiled in place.
    """

    def around(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        before()
        try:
            return inner(*args, **kwargs)
        finally:
            after()

    compiled = getattr(module, "_compiled_call_impl", None)
    return None if compiled is None else wrap(module, "_compiled_call_impl", around)


def watch_scripted(called: Callable[[str, bool], None]) -> list[Callable[[], None]]:
    """Have each call of a TorchScript function or method announced, and whether it may hide a ReLU; gives undos."""
    kinds = [getattr(torch._C, name, None) for name in ("ScriptFunction", "ScriptMethod")]
    if None in kinds:
        warn_renamed("ScriptFunction or ScriptMethod", "ReLU calls in scripted functions are neither counted nor named")

    suspects: dict[int, tuple[Any, bool]] = {}  # by id, with the function itself, which keeps the id its own

    def around(inner: Callable[..., Any], function: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if id(function) not in suspects:
            graph = str(function.inlined_graph)
            hides = any(name in graph for name in ("relu", "threshold", "hardtanh", "clamp"))
            suspects[id(function)] = function, hides
        called(function.name, suspects[id(function)][1])
        return inner(function, *args, **kwargs)

    return [wrap(kind, "__call__", around) for kind in kinds if kind is not None]


def is_watched(*modules: nn.Module) -> bool:
    """Tell whether a hook, a mode or a ``forward`` of its own sees a module's calls; torch has no public question."""
    dispatch = getattr(torch.utils, "_python_dispatch", None)
    for part, name in ((overrides, "_get_current_function_mode"), (dispatch, "_get_current_dispatch_mode")):
        mode = getattr(part, name, None)
        if mode is None:
            warn_renamed(name, "every call counts as watched")
        if mode is None or mode() is not None:
            return True
    return any("forward" in vars(module) for module in modules) or _any_hook(modules, _HOOKS, globally=True)


def has_forward_hook(*modules: nn.Module, but: str = "", globally: bool = False) -> bool:
    """Tell whether a hook runs with a module's forward, as torch's fused layers ask before they run.

    Args:
        *modules: To be asked.
        but: The Python module whose own hooks do not count.
        globally: Those of all modules count too, for which the fused layers do not ask.
    """
    return _any_hook(modules, _FORWARD_HOOKS, but, globally)


def _any_hook(modules: Iterable[nn.Module], kinds: Sequence[str], but: str = "", globally: bool = False) -> bool:
    of_all = [(torch.nn.modules.module, f"_global{kind}") for kind in kinds if globally]
    holders = [*((module, kind) for module in modules for kind in kinds), *of_all]
    if not all(hasattr(holder, kind) for holder, kind in holders):
        warn_renamed("_forward_hooks and the like", "every module counts as hooked")
        return True
    return any(getattr(hook, "__module__", None) != but for where in holders for hook in getattr(*where).values())
