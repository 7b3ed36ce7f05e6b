"""What is used of torch's private parts: how a compiled module is recognised and its call wrapped, who watches calls.

Where a name below disappears, a compiled part counts as one without ReLU calls and every call as watched, and a warning
says so.
"""

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn, overrides


@functools.cache  # once
def warn_renamed(name: str, consequence: str) -> None:
    """Warn that a private name of torch or Lightning is gone, and what follows."""
    warnings.warn(f"The installed version has no `{name}` any more: {consequence}.", stacklevel=3)


def is_compiled(module: nn.Module) -> bool:
    """Tell whether ``module`` is what ``torch.compile`` returned, or was compiled in place.

    ``_compiler_ctx`` is Lightning's mark on a LightningModule that was compiled before it reached the trainer.
    """
    dynamo = sys.modules.get("torch._dynamo")  # imported by whoever compiles; it takes seconds
    wrapper = getattr(dynamo, "OptimizedModule", ())
    if (dynamo and not wrapper) or not hasattr(nn.Module, "_compiled_call_impl"):
        warn_renamed("torch._dynamo.OptimizedModule", "ReLU calls in compiled modules are neither counted nor named")
    marks = ("_compiled_call_impl", "_compiler_ctx")
    return isinstance(module, wrapper) or any(getattr(module, mark, None) is not None for mark in marks)


def wrap_compiled_call(
    module: nn.Module, before: Callable[[], None], after: Callable[[], None]
) -> Callable[[], None] | None:
    """Call ``before`` and ``after`` around every call of a module that was compiled in place, with its hooks.

    Returns what takes the wrapper off again; None where the module is not compiled in place.
    """
    compiled = getattr(module, "_compiled_call_impl", None)
    if compiled is None:
        return None

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        before()
        try:
            return compiled(*args, **kwargs)
        finally:
            after()

    module._compiled_call_impl = call
    return lambda: setattr(module, "_compiled_call_impl", compiled)


def is_watched(*modules: nn.Module) -> bool:
    """Tell whether a hook or a torch-function mode sees the modules' calls, for which torch has no public question."""
    mode = getattr(overrides, "_get_current_function_mode", None)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if mode is None or not all(hasattr(module, name) for module in modules for name in hooks):
        warn_renamed("_get_current_function_mode or _forward_hooks", "every call counts as watched")
        return True
    return mode() is not None or any(getattr(module, name) for module in modules for name in hooks)
