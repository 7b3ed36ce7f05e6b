"""What may be in a checkpoint: tensors and plain values, nothing that has to be rebuilt by running code."""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

import torch

_SCALARS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_SEQUENCES = (list, tuple, set)
_MAPPINGS = (dict, OrderedDict, Counter)
_TENSORS = (torch.Tensor, torch.nn.Parameter)


def not_plain(value: Any, name: str = "checkpoint") -> str | None:  # noqa: ANN401
    """The first thing in a nested value that a safe load would refuse, by its place and type; None if there is none.

    The types must match exactly: a subclass of ``int`` or ``dict`` needs its class to be loaded.
    """
    kind = type(value)
    if kind in _SCALARS or kind in _TENSORS:
        return None
    if kind in _SEQUENCES or kind in _MAPPINGS:
        return next((found for part, item in _parts(value, name) if (found := not_plain(item, part))), None)
    return f"{name} is a {kind.__module__}.{kind.__qualname__}"


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"a key of {name}", key
            yield f"{name}[{key!r}]", item
    else:
        for number, item in enumerate(value):
            yield f"{name}[{number}]", item
