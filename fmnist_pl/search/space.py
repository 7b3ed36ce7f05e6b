"""Reads a search space: which names vary over which values, and which networks are too large to be trained."""

import difflib
import inspect
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse.typing import PositiveInt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from torch.utils.flop_counter import FlopCounterMode

from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.data import FashionMNISTDataModule
from fmnist_pl.network import FashionCNN, parameter_count
from training_health.errors import UserError

DEFAULT = Path(__file__).with_name("default_space.yaml")
_DRAWS = 1_000  # before a space is taken to hold nothing that may be trained
_NETWORK, _DATA = (inspect.signature(one).parameters for one in (FashionCNN, FashionMNISTDataModule))
_MADE_OF = {"conv_channels": ("conv_layers", "channels", "widening"), "hidden_units": ("hidden_layers", "hidden_width")}


@dataclass
class _File:
    """A space's file; see ``default_space.yaml``."""

    space: dict[str, dict[str, Any] | list[Any]]
    fixed: dict[str, Any] | None = None
    first: list[dict[str, Any]] | None = None
    parameters_at_most: PositiveInt = field(default=PositiveInt(500_000))
    multiplications_at_most: PositiveInt | None = None


def shape(
    conv_layers: int = 2, channels: int = 64, widening: float = 0.5, hidden_layers: int = 1, hidden_width: int = 256
) -> dict[str, list[int]]:
    """The network's shape from numbers, since a search cannot vary lists; the defaults are the baseline's."""
    return {
        "conv_channels": [max(1, round(channels * widening**layer)) for layer in range(conv_layers)],
        "hidden_units": [hidden_width] * hidden_layers if hidden_width else [],
    }


class Space:
    """A search space.

    Args:
        content: What the YAML file holds.
        name: The file's name, for messages.

    Attributes:
        distributions: Optuna's distribution of each parameter by name, in the file's order.
        first: Sets of parameters that are tried before any others.

    Raises:
        UserError: If the content is no search space; names the file, the parameter and what was expected.
    """

    def __init__(self, content: Any, name: str = "The space") -> None:  # noqa: ANN401
        self.name, self.content = name, content
        self._parser = ArgumentParser(exit_on_error=False)  # of values, with the types that `fmnist fit` takes
        self._parser.add_function_arguments(shape)
        self._parser.add_class_arguments(FashionClassifier, skip={"image_size", "classes"})
        skip = {"root", "dataset", "seed", "training_images"}
        self._parser.add_class_arguments(FashionMNISTDataModule, skip=skip)
        self._known = self._parser.get_defaults().as_dict()
        parser = ArgumentParser(exit_on_error=False)
        parser.add_class_arguments(_File)
        if not isinstance(content, dict) or not content.get("space"):
            raise self._error(f"it must be a mapping with something under the key `space`, like {DEFAULT}")
        file = self._parsed(parser, content)
        fixed = file["fixed"] or {}
        named = [*file["space"], *fixed]
        named += [made for made, parts in _MADE_OF.items() for part in parts if made in named and part in named]
        if twice := [name for name in named if named.count(name) > 1]:
            sources = _MADE_OF.get(twice[0], ("space", "fixed"))
            raise self._error(f"{twice[0]} gets its value twice, from {' and '.join(sources)}")
        self._fixed = {name: self._value(name, value) for name, value in fixed.items()}
        self.distributions = {name: self._distribution(name, values) for name, values in file["space"].items()}
        limits = {name: file[f"{name}_at_most"] for name in ("parameters", "multiplications")}
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}
        self.first = [{name: self._value(name, value) for name, value in one.items()} for one in file["first"] or []]
        for params in self.first:
            try:
                optuna.create_trial(params=params, distributions=self.distributions, value=0.0)  # checks them
            except ValueError as error:
                raise self._error(f"first must name what space names, with values that it contains: {error}") from None
            if violation := self.size(params)[2]:
                raise self._error(f"a configuration under first may not be trained: {violation}")

    def overlay(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration that a trial's parameters mean, as an overlay on the base configuration."""
        values = {**self._fixed, **params}
        values |= {name: json.loads(value) for name, value in values.items() if str(value).startswith("[")}
        numbers = {name: values.pop(name) for parts in _MADE_OF.values() for name in parts if name in values}
        made = shape(**numbers)
        values |= {name: made[name] for name, parts in _MADE_OF.items() if numbers.keys() & parts}
        data = {name: values.pop(name) for name in list(values) if name in _DATA}
        return {"model": values, **({"data": data} if data else {})}

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

    def size(self, params: Mapping[str, Any]) -> tuple[int, dict[str, float], str]:
        """Count a network's weights, and its multiplications per image, without allocating or computing anything.

        Returns:
            The weights; by limit how far it is exceeded, as a fraction of it (up to 0: it is not); and in words what
            keeps the network from being trained, empty if it may be.
        """
        arguments = {key: value for key, value in self.overlay(params)["model"].items() if key in _NETWORK}
        try:
            with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
                network = FashionCNN(**arguments).eval()
                network(torch.empty(1, 1, 28, 28))
        except (TypeError, ValueError) as error:  # for instance: the image shrinks to nothing
            return 0, {"network": 1.0}, str(error)
        sizes = {"parameters": parameter_count(network), "multiplications": counter.get_total_flops() // 2}
        excess = {name: sizes[name] / limit - 1 for name, limit in self._limits.items()}
        broken = [f"{sizes[n]:,} {n}, and {self._limits[n]:,} are allowed" for n in excess if excess[n] > 0]
        return sizes["parameters"], excess, "; ".join(broken)

    def trainable(self, at_most: int) -> list[dict[str, Any]] | None:
        """All parameters that may be trained; None if there are more than ``at_most``.

        Raises:
            UserError: There are none, or they are so rare that none was found.
        """
        values = [_values(distribution) for distribution in self.distributions.values()]
        small = math.prod(len(some) if some else at_most + 1 for some in values) <= at_most
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        sampled = (study.ask(self.distributions).params for _ in range(_DRAWS))
        every = (dict(zip(self.distributions, one, strict=True)) for one in itertools.product(*values))
        found = (params for params in (every if small else sampled) if not self.size(params)[2])
        if (one := next(found, None)) is None:
            violation = self.size(study.ask(self.distributions).params)[2]
            raise self._error(
                f"of {'all' if small else f'{_DRAWS:,}'} its configurations none may be trained, for instance: "
                f"{violation}. Widen it, or raise parameters_at_most or multiplications_at_most"
            )
        return [one, *found] if small else None

    def _error(self, text: str) -> UserError:
        return UserError(f"{self.name}: {text}.", exit_code=2)

    def _parsed(self, parser: ArgumentParser, values: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return parser.parse_object(dict(values)).as_dict()
        except ArgumentError as error:
            raise self._error(" ".join(str(error).split())) from None

    def _value(self, name: str, value: Any) -> Any:  # noqa: ANN401
        """A value as ``fmnist fit`` would take it, such as 1.0 for 1 or the text 1e-3; a list as JSON, for Optuna."""
        if name not in self._known:
            nearest = difflib.get_close_matches(str(name), self._known, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise self._error(f"unknown name {name!r}.{hint} Known: {', '.join(sorted(self._known))}")
        taken = self._parsed(self._parser, {name: value})[name]
        return json.dumps(value) if isinstance(value, list) else taken

    def _distribution(self, name: str, values: dict[str, Any] | list[Any]) -> BaseDistribution:
        try:
            if isinstance(values, list):
                choices = [self._value(name, value) for value in values]
                if len(set(choices)) < len(choices):
                    raise ValueError("one of the choices is there twice")
                return CategoricalDistribution(choices)
            if not {"from", "to"} <= set(values) <= {"from", "to", "step", "log"}:
                raise ValueError("it must be a list, or {from: ..., to: ...} with step or log")
            low, high = (self._value(name, values[end]) for end in ("from", "to"))
            if isinstance(low, int):
                return IntDistribution(low, high, log=values.get("log", False), step=values.get("step", 1))
            return FloatDistribution(low, high, log=values.get("log", False), step=values.get("step"))
        except (TypeError, ValueError) as error:
            raise self._error(f"{name} cannot be sampled from {values!r}: {error}") from None


def _values(one: Any) -> Sequence[Any]:  # noqa: ANN401
    """All values of a distribution; empty if there is no end of them."""
    if isinstance(one, CategoricalDistribution):
        return one.choices
    if one.step is None:
        return [one.low] if one.single() else []
    return [one.low + number * one.step for number in range(round((one.high - one.low) / one.step) + 1)]
