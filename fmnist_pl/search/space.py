"""Reads a search space: which names vary over which values, and which networks are too large to be trained."""

import difflib
import inspect
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import torch
from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import PositiveInt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from torch.utils.flop_counter import FlopCounterMode

from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.configuration import load_yaml
from fmnist_pl.data import FashionMNISTDataModule
from fmnist_pl.network import FashionCNN, parameter_count
from training_health.errors import UserError

DEFAULT = Path(__file__).with_name("default_space.yaml")
_DRAWS = 1_000  # before a space is taken to hold nothing that may be trained
_NETWORK = inspect.signature(FashionCNN).parameters
_MADE_OF = {"conv_channels": ("conv_layers", "channels", "widening"), "hidden_units": ("hidden_layers", "hidden_width")}
_BOTH = ("space", "fixed")


@dataclass
class _File:
    """A space's file; see ``default_space.yaml``."""

    space: dict[str, dict[str, Any] | list[Any]] = field(default_factory=dict)
    fixed: dict[str, Any] | None = None
    first: list[dict[str, Any]] | None = None
    parameters_at_most: PositiveInt = field(default=PositiveInt(500_000))
    multiplications_at_most: PositiveInt | None = None


@dataclass
class Shape:
    """The network's shape in numbers, since a search cannot vary lists; the defaults are the baseline's."""

    conv_layers: int = 2
    channels: int = 64
    widening: float = 0.5
    hidden_layers: int = 1
    hidden_width: int = 256


class Size(NamedTuple):
    """Whether a network may be trained."""

    parameters: int  # 0 where there is no such network
    excess: dict[str, float]  # by limit, as a fraction of it; up to 0 keeps to it
    violation: str | None  # in words; None if it may be trained


class Space:
    """A search space.

    Args:
        content: Of its file.
        name: Of its file, for messages.

    Attributes:
        distributions: By name, in the file's order.
        first: Parameters to try before any is drawn.

    Raises:
        UserError: With status 2, naming the file, the name and what was expected.
    """

    def __init__(self, content: Any, name: str = "The space") -> None:  # noqa: ANN401
        self.name, self.content = name, content
        self._parser = ArgumentParser(exit_on_error=False)
        self._parser.add_class_arguments(_File, "file")
        self._parser.add_class_arguments(Shape, "shape")
        self._parser.add_class_arguments(FashionClassifier, "model", skip={"image_size", "classes"})
        not_searched = {"root", "dataset", "seed", "training_images"}
        self._parser.add_class_arguments(FashionMNISTDataModule, "data", skip=not_searched)
        defaults = self._parser.get_defaults().as_dict()
        self._group_of = {name: group for group in ("shape", "model", "data") for name in defaults[group]}
        if not isinstance(content, dict) or not content.get("space"):
            raise self._error(f"it must be a mapping with something under the key `space`, like {DEFAULT}")
        file = self._parsed("file", content)
        varied, fixed = file["space"], file["fixed"] or {}
        named = [*varied, *fixed]
        for made, parts in _MADE_OF.items():
            named += [made for part in parts if made in named and part in named]
        if twice := [name for name in named if named.count(name) > 1]:
            raise self._error(f"{twice[0]} gets its value twice, from {' and '.join(_MADE_OF.get(twice[0], _BOTH))}")
        self._fixed = {name: self._value(name, value) for name, value in fixed.items()}
        self.distributions = {name: self._distribution(name, values) for name, values in varied.items()}
        limits = {name: file[f"{name}_at_most"] for name in ("parameters", "multiplications")}
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}
        self.first = [
            {name: _encoded(self._value(name, value)) for name, value in one.items()} for one in file["first"] or []
        ]
        for params in self.first:
            try:
                optuna.create_trial(params=params, distributions=self.distributions, value=0.0)  # checks them
            except ValueError as error:
                raise self._error(f"first must name what space names, with values that it contains: {error}") from None
            if violation := self.size(params).violation:
                raise self._error(f"a configuration under first may not be trained: {violation}")

    def overlay(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration that a trial's parameters mean, as an overlay on the base configuration."""
        values = {**self._fixed, **{name: _decoded(value) for name, value in params.items()}}
        groups: dict[str, dict[str, Any]] = {"shape": {}, "model": {}, "data": {}}
        for name, value in values.items():
            groups[self._group_of[name]][name] = value
        shape, model = Shape(**groups["shape"]), groups["model"]
        if any(name in values for name in _MADE_OF["conv_channels"]):
            factors = [shape.widening**layer for layer in range(shape.conv_layers)]
            model["conv_channels"] = [max(1, round(shape.channels * factor)) for factor in factors]
        if any(name in values for name in _MADE_OF["hidden_units"]):
            model["hidden_units"] = [shape.hidden_width] * shape.hidden_layers if shape.hidden_width else []
        return {"model": model, **({"data": groups["data"]} if groups["data"] else {})}

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Have a trial's sampler choose a value for every name."""
        for name, one in self.distributions.items():
            if isinstance(one, CategoricalDistribution):
                trial.suggest_categorical(name, one.choices)
            elif isinstance(one, IntDistribution):
                trial.suggest_int(name, one.low, one.high, step=one.step, log=one.log)
            elif isinstance(one, FloatDistribution):
                trial.suggest_float(name, one.low, one.high, step=one.step, log=one.log)
        return trial.params

    def size(self, params: Mapping[str, Any]) -> Size:
        """Count a network's weights, and its multiplications per image, without allocating or computing anything."""
        arguments = {key: value for key, value in self.overlay(params)["model"].items() if key in _NETWORK}
        try:
            with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
                network = FashionCNN(**arguments).eval()
                network(torch.empty(1, 1, 28, 28))
        except (TypeError, ValueError) as error:  # for instance: the image shrinks to nothing
            return Size(0, {"network": 1.0}, str(error))
        sizes = {"parameters": parameter_count(network), "multiplications": counter.get_total_flops() // 2}
        excess = {name: sizes[name] / limit - 1 for name, limit in self._limits.items()}
        broken = [name for name in excess if excess[name] > 0]
        text = "; ".join(f"{sizes[name]:,} {name}, and {self._limits[name]:,} are allowed" for name in broken)
        return Size(sizes["parameters"], excess, text or None)

    def trainable(self, at_most: int) -> list[dict[str, Any]] | None:
        """All parameters that may be trained; None if there are more than ``at_most``.

        Raises:
            UserError: There are none, or they are so rare that none was drawn.
        """
        values = [_values(distribution) for distribution in self.distributions.values()]
        small = math.prod(len(some) if some else at_most + 1 for some in values) <= at_most
        draws = itertools.product(*values) if small else itertools.repeat(None, _DRAWS)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        found, violation = [], None
        for draw in draws:
            one = dict(zip(self.distributions, draw, strict=True)) if draw else study.ask(self.distributions).params
            violation = self.size(one).violation
            if violation is None and not small:
                return None
            found += [one] if violation is None else []
        if not found:
            raise self._error(
                f"of {'all' if small else f'{_DRAWS:,}'} its configurations none may be trained, for instance: "
                f"{violation}. Widen it, or raise parameters_at_most or multiplications_at_most"
            )
        return found

    def _error(self, text: str) -> UserError:
        return UserError(f"{self.name}: {text}.", exit_code=2)

    def _parsed(self, group: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as ``fmnist fit`` would take them: 1 becomes 1.0 where a float is meant, and so does the text 1e-3."""
        try:
            return self._parser.parse_object({group: dict(values)})[group].as_dict()
        except ArgumentError as error:
            raise self._error(" ".join(str(error).split())) from None

    def _value(self, name: str, value: Any) -> Any:  # noqa: ANN401
        if name not in self._group_of:
            nearest = difflib.get_close_matches(str(name), self._group_of, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise self._error(f"unknown name {name!r}.{hint} Known: {', '.join(sorted(self._group_of))}")
        taken = self._parsed(self._group_of[name], {name: value})[name]
        return value if isinstance(value, list) else taken

    def _distribution(self, name: str, values: dict[str, Any] | list[Any]) -> BaseDistribution:
        if isinstance(values, list):
            choices = [_encoded(self._value(name, value)) for value in values]
            if not choices or len(set(choices)) < len(choices):
                raise self._error(f"{name} has no choices, or one of them twice: {values!r}")
            return CategoricalDistribution(choices)
        if not {"from", "to"} <= set(values) <= {"from", "to", "step", "log"}:
            raise self._error(f"{name} must be a list, or {{from: ..., to: ...}} with step or log, got {values!r}")
        low, high = (self._value(name, values[end]) for end in ("from", "to"))
        step, log = values.get("step"), values.get("log", False)
        try:
            if isinstance(low, int):
                return IntDistribution(low, high, log=log, step=1 if step is None else step)
            return FloatDistribution(low, high, log=log, step=step)
        except (TypeError, ValueError) as error:
            raise self._error(f"the range {values!r} of {name} cannot be drawn from: {error}") from None


def read_space(path: Path) -> Space:
    """Read and check a space's file."""
    return Space(load_yaml(path), str(path))


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    """All values of a distribution; empty if there is no end of them."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    assert isinstance(distribution, FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    return [low + number * step for number in range(round((high - low) / step) + 1)] if step else [low] * (low == high)


def _encoded(value: Any) -> Any:  # noqa: ANN401
    """A value that Optuna takes: lists become JSON."""
    return json.dumps(value) if isinstance(value, list) else value


def _decoded(value: Any) -> Any:  # noqa: ANN401
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value
