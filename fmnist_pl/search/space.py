"""Reads a search space: which names vary over which values, checked before anything runs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fmnist_pl.runs.identity import content_hash
from fmnist_pl.search import constraints
from fmnist_pl.search.vocabulary import checked, kind_of, overlay, refuse_contradictions
from fmnist_pl.yaml_file import load_yaml
from training_health.errors import UserError

DEFAULT = Path(__file__).with_name("default_space.yaml")
_SECTIONS = ("space", "fixed", "first", "parameters_at_most", "multiplications_at_most")
_RANGE = ("from", "to", "step", "log")


@dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        name: Of the file.
        content: As read.
        distributions: By name, in the file's order.
        fixed: Names with their only value.
        first: Parameters that are tried before any is drawn.
        parameters_at_most: Weights that a network may have.
        multiplications_at_most: That its forward pass may take per image; None for any number.
    """

    name: str
    content: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    fixed: dict[str, Any]
    first: tuple[dict[str, Any], ...]
    parameters_at_most: int
    multiplications_at_most: int | None = None

    @property
    def digest(self) -> str:
        """The same for spaces that say the same, whatever their layout and comments."""
        return content_hash(self.content)

    def overlay(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration that a trial's parameters mean."""
        return overlay({**self.fixed, **{name: _decoded(value) for name, value in params.items()}})

    def parameters(self, params: Mapping[str, Any]) -> int:
        """Weights in the network of a trial."""
        return constraints.parameters_of(self.overlay(params))

    def refusal(self, params: Mapping[str, Any]) -> str | None:
        """Why these parameters must not be trained; None if they may."""
        return constraints.refusal(self.overlay(params), self.parameters_at_most, self.multiplications_at_most)


def read_space(path: Path) -> Space:
    """Read and check a space.

    Raises:
        UserError: With status 2, naming the file, the name and what was expected.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a mapping with the key `space`, for instance like {DEFAULT}.", exit_code=2)
    if unknown := [str(key) for key in content if key not in _SECTIONS]:
        raise UserError(f"{path}: unknown key {unknown[0]!r}. Known: {', '.join(_SECTIONS)}.", exit_code=2)
    varied, fixed = (_section(content, name, path) for name in ("space", "fixed"))
    if not varied:
        raise UserError(f"{path}: the space is empty. Name at least one thing to vary, like {DEFAULT}.", exit_code=2)
    if twice := sorted(set(varied) & set(fixed)):
        raise UserError(f"{path}: {twice[0]} is both varied and fixed.", exit_code=2)
    refuse_contradictions([*varied, *fixed], str(path))
    distributions = {name: _distribution(name, values, str(path)) for name, values in varied.items()}
    space = Space(
        path.stem,
        content,
        distributions,
        {name: checked(name, value, str(path)) for name, value in fixed.items()},
        _first(content.get("first") or [], distributions, str(path)),
        _limit("parameters_at_most", content.get("parameters_at_most", constraints.LARGEST), str(path)),
        None
        if content.get("multiplications_at_most") is None
        else _limit("multiplications_at_most", content["multiplications_at_most"], str(path)),
    )
    for params in space.first:
        if reason := space.refusal(params):
            raise UserError(f"{path}: a configuration under first cannot be trained: {reason}", exit_code=2)
    return space


def _section(content: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    section = content.get(name) or {}
    if not isinstance(section, dict):
        raise UserError(f"{path}: {name} must map names to values, got {section!r}.", exit_code=2)
    return section


def _distribution(name: str, values: Any, where: str) -> BaseDistribution:  # noqa: ANN401
    kind = kind_of(name, where)
    if isinstance(values, list):
        choices = [_encoded(checked(name, value, where)) for value in values]
        if not choices or len(set(choices)) < len(choices):
            what = "has no choices" if not choices else "names a choice twice"
            raise UserError(f"{where}: {name} {what}: {values!r}.", exit_code=2)
        return CategoricalDistribution(choices)
    if not isinstance(values, dict) or not {"from", "to"} <= set(values) <= set(_RANGE):
        raise UserError(
            f"{where}: {name} must be a list of choices or a range {{from: ..., to: ...}} with step or log if wanted, "
            f"got {values!r}. A single value belongs under `fixed`.",
            exit_code=2,
        )
    if kind not in (int, float):
        raise UserError(f"{where}: {name} has no range, only a list of choices.", exit_code=2)
    low, high = (checked(name, values[end], where) for end in ("from", "to"))
    log, step = values.get("log", False), values.get("step")
    if not isinstance(log, bool):
        raise UserError(f"{where}: log of {name} must be true or false, got {log!r}.", exit_code=2)
    if step is not None and (isinstance(step, bool) or not isinstance(step, int if kind is int else int | float)):
        whole = "whole " if kind is int else ""
        raise UserError(f"{where}: step of {name} must be a {whole}number, got {step!r}.", exit_code=2)
    try:
        if kind is int:
            return IntDistribution(low, high, log=log, step=1 if step is None else step)
        return FloatDistribution(low, high, log=log, step=step)
    except ValueError as error:
        raise UserError(f"{where}: the range of {name} cannot be drawn from: {error}", exit_code=2) from None


def _first(listed: Any, distributions: Mapping[str, BaseDistribution], where: str) -> tuple[dict[str, Any], ...]:  # noqa: ANN401
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise UserError(f"{where}: first must be a list of configurations, got {listed!r}.", exit_code=2)
    for one in listed:
        if set(one) != set(distributions):
            differing = ", ".join(sorted(map(str, set(one) ^ set(distributions))))
            raise UserError(
                f"{where}: a configuration under first must name what space names. Differing: {differing}.", exit_code=2
            )
    checked_ones = [{name: _encoded(checked(name, one[name], where)) for name in distributions} for one in listed]
    for one in checked_ones:
        for name, value in one.items():
            if not _holds(distributions[name], value):
                raise UserError(f"{where}: first has {name} {value!r}, which the space does not contain.", exit_code=2)
    return tuple(checked_ones)


def _holds(distribution: BaseDistribution, value: Any) -> bool:  # noqa: ANN401
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return distribution._contains(distribution.to_internal_repr(value))


def _limit(name: str, value: Any, where: str) -> int:  # noqa: ANN401
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{where}: {name} must be a whole number from 1, got {value!r}.", exit_code=2)
    return value


def _encoded(value: Any) -> Any:  # noqa: ANN401
    """Optuna takes no lists as choices; their JSON stands for them."""
    return json.dumps(value) if isinstance(value, list) else value


def _decoded(value: Any) -> Any:  # noqa: ANN401
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value
