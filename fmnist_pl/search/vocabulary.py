"""The names that a search space may vary, what each may be, and the configuration that their values make."""

import difflib
import inspect
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.network import FashionCNN
from training_health.errors import UserError

# The shape of the network in numbers, since a search cannot vary lists: together they make conv_channels and
# hidden_units. The defaults are the baseline's.
SHAPE: dict[str, tuple[type, int | float]] = {
    "conv_layers": (int, 2),
    "channels": (int, 64),
    "widening": (float, 0.5),
    "hidden_layers": (int, 1),
    "hidden_width": (int, 256),
}
_MADE_OF = {
    "conv_channels": ("conv_layers", "channels", "widening"),
    "hidden_units": ("hidden_layers", "hidden_width"),
}
_DATA = {"batch_size": int, "augmentation": list}
_NOT_SEARCHED = {"self", "network", "image_size", "classes"}
_BOUNDS: dict[str, tuple[float, float]] = {
    "conv_layers": (1, 50),
    "channels": (1, math.inf),
    "widening": (0, math.inf),
    "hidden_layers": (0, 50),
    "hidden_width": (0, math.inf),
    "kernel_size": (1, 28),
    "stride": (1, 28),
    "convs_per_pool": (0, math.inf),
    "conv_dropout": (0, 0.99),
    "hidden_dropout": (0, 0.99),
    "learning_rate": (0, math.inf),
    "momentum": (0, 0.9999),
    "weight_decay": (0, math.inf),
    "adam_epsilon": (0, math.inf),
    "label_smoothing": (0, 1),
    "batch_size": (1, math.inf),
}


def types() -> dict[str, Any]:
    """Every name with the type of its values."""
    found: dict[str, Any] = {name: kind for name, (kind, _) in SHAPE.items()}
    for function in (FashionClassifier.__init__, FashionCNN.__init__):
        hints = get_type_hints(function)
        names = [name for name in inspect.signature(function).parameters if name not in _NOT_SEARCHED]
        found.update({name: hints[name] for name in names})
    return {**found, **_DATA}


def kind_of(name: str, where: str) -> Any:  # noqa: ANN401
    """The type of the values of ``name``.

    Raises:
        UserError: There is no such name; the message lists them and the nearest one.
    """
    known = types()
    if name in known:
        return known[name]
    nearest = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    raise UserError(f"{where}: unknown name {name!r}.{hint} Known: {', '.join(sorted(known))}.", exit_code=2)


def checked(name: str, value: Any, where: str) -> Any:  # noqa: ANN401
    """``value`` as ``name`` takes it: 1 becomes 1.0 where a float is meant, and so does YAML's text 1e-3.

    Raises:
        UserError: It is of another type, or out of bounds.
    """
    kind = kind_of(name, where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UserError(f"{where}: {name} must be one of {', '.join(get_args(kind))}, got {value!r}.", exit_code=2)
        return value
    if kind in (int, float):
        return _number(name, kind, value, where)
    if not isinstance(value, list):
        raise UserError(f"{where}: each value of {name} must be a list, got {value!r}.", exit_code=2)
    if kind is not list and not all(_is_integer(item) and item >= 1 for item in value):
        raise UserError(f"{where}: {name} must hold whole numbers from 1, got {value!r}.", exit_code=2)
    return value


def _number(name: str, kind: type, value: Any, where: str) -> int | float:  # noqa: ANN401
    number = value
    if isinstance(value, str):  # YAML 1.1 takes 1e-3, without a point, for text
        try:
            number = float(value)
        except ValueError:
            number = None
    if kind is int and not _is_integer(number):
        raise UserError(f"{where}: {name} must be a whole number, got {value!r}.", exit_code=2)
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise UserError(f"{where}: {name} must be a number, got {value!r}.", exit_code=2)
    low, high = _BOUNDS.get(name, (-math.inf, math.inf))
    if not low <= number <= high:
        allowed = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        raise UserError(f"{where}: {name} must be {allowed}, got {value!r}.", exit_code=2)
    return kind(number)


def refuse_contradictions(names: list[str], where: str) -> None:
    """Refuse a list beside the numbers that would make it.

    Raises:
        UserError: For instance conv_channels beside channels.
    """
    for made, parts in _MADE_OF.items():
        both = [part for part in parts if part in names]
        if made in names and both:
            raise UserError(
                f"{where}: {made} and {both[0]} contradict each other: {made} is made of {', '.join(parts)}. "
                "Name one or the other.",
                exit_code=2,
            )


def overlay(values: Mapping[str, Any]) -> dict[str, Any]:
    """The nested configuration that ``values`` mean, as an overlay on the base configuration."""
    model = {name: value for name, value in values.items() if name not in SHAPE and name not in _DATA}
    shape = {name: values.get(name, default) for name, (_, default) in SHAPE.items()}
    if any(name in values for name in _MADE_OF["conv_channels"]):
        first, factor = shape["channels"], shape["widening"]
        model["conv_channels"] = [max(1, round(first * factor**layer)) for layer in range(int(shape["conv_layers"]))]
    if any(name in values for name in _MADE_OF["hidden_units"]):
        width = int(shape["hidden_width"])
        model["hidden_units"] = [width] * int(shape["hidden_layers"]) if width else []
    data = {name: values[name] for name in _DATA if name in values}
    return {"model": model, **({"data": data} if data else {})}


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
