"""Finds the random generators that data and code hold, wherever these lie."""

from __future__ import annotations

import gc
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MOST = 20_000  # objects looked at, the nearest first
_MOST_PARTS = 100  # of one: what a long list holds are examples
_NO_HOLDERS = (Tensor, str, bytes, int, float, types.ModuleType, types.FrameType, types.CodeType)
# What draws in their code draws from the global generators, which are guarded apart.
_KNOWN_PACKAGES = frozenset(sys.stdlib_module_names) | {
    "lightning", "lightning_fabric", "numpy", "pandas", "pytorch_lightning", "torch", "torchmetrics", "torchvision",
    "training_health",
}  # fmt: skip


def generators_in(
    *roots: object, but: Iterable[object] = ()
) -> Iterator[tuple[Callable[[], Any], Callable[[Any], None]]]:
    """Find the random generators in objects, their parts and the code of these: how to get and to set their state.

    Found are attributes, what is in containers, partial functions, closures and defaults, and the globals that a
    function or method names. The garbage collector says what an object refers to, so no code of the user's runs.

    Args:
        *roots: Where to begin.
        but: What is not looked into.
    """
    seen: dict[int, object] = {id(value): value for value in but}  # with the object, so that its id stays its own
    queue = deque(roots)
    while queue and len(seen) < _MOST:
        value: Any = queue.popleft()
        kind = type(value)
        if id(value) in seen or issubclass(kind, _NO_HOLDERS):
            continue
        seen[id(value)] = value
        if issubclass(kind, random.Random):
            if not issubclass(kind, random.SystemRandom):  # which has no state
                yield value.getstate, value.setstate
        elif issubclass(kind, (torch.Generator, np.random.RandomState)):
            yield value.get_state, value.set_state
        elif issubclass(kind, np.random.BitGenerator):  # behind a np.random.Generator
            yield partial(getattr, value, "state"), partial(setattr, value, "state")
        elif issubclass(kind, types.FunctionType):
            if not _is_known(value.__module__):
                queue.extend((value.__defaults__, value.__kwdefaults__, value.__closure__, vars(value)))
                queue.extend(_globals_named_in(value))
        elif not (issubclass(kind, type) and _is_known(value.__module__)):
            queue.extend(gc.get_referents(value)[:_MOST_PARTS])


def _is_known(module: object) -> bool:
    return str(module).partition(".")[0] in _KNOWN_PACKAGES


def _globals_named_in(function: types.FunctionType) -> Iterator[object]:
    """Give what a function's names mean outside of it, in modules that it names too, such as ``settings.rng``."""
    codes = [function.__code__]
    for code in codes:  # and those within it
        codes += [value for value in code.co_consts if isinstance(value, types.CodeType)]
    names = {name for code in codes for name in code.co_names}
    spaces = [function.__globals__]
    for space in spaces:
        for value in [space[name] for name in names if name in space]:
            if not issubclass(type(value), types.ModuleType):  # not `isinstance`, which may run code of the user's
                yield value
            elif not _is_known(vars(value).get("__name__", "")) and all(vars(value) is not each for each in spaces):
                spaces.append(vars(value))
