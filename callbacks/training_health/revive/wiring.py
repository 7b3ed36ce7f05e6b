"""The parameters that belong to the units of each ReLU site, by name: of the layers before and behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from training_health.relu.feeds import Feed
from training_health.relu.origins import Origins


class NormNames(NamedTuple):
    """Names of a batch normalisation's parameters and buffers; None where it has none."""

    weight: str | None
    bias: str | None
    running_mean: str | None
    running_var: str | None


class FeedNames(NamedTuple):
    """The layer that feeds a site, by the names of its parameters."""

    weight: str
    bias: str | None
    rows: list[int]  # of the weight and bias, for each unit; also the entries of the norms
    norms: tuple[NormNames, ...]


class Use(NamedTuple):
    """A layer that takes in a site's units."""

    weight: str
    units: list[int]  # for each input feature of the layer, the unit that it comes from
    groups: int


@dataclass
class Wires:
    """What belongs to a site's units; nothing may be changed where there is an ``obstacle``."""

    feed: FeedNames | None = None
    uses: list[Use] = field(default_factory=list)
    obstacle: str = ""

    def as_plain(self) -> list[Any]:
        """Lists and strings, for a checkpoint; of a site without an obstacle."""
        assert self.feed is not None
        weight, bias, rows, norms = self.feed
        return [[weight, bias, rows, [list(norm) for norm in norms]], [list(use) for use in self.uses]]

    @classmethod
    def of_plain(cls, plain: list[Any]) -> Wires:
        """The reverse of `as_plain`."""
        (weight, bias, rows, norms), uses = plain
        return cls(
            FeedNames(weight, bias, rows, tuple(NormNames(*norm) for norm in norms)), [Use(*use) for use in uses]
        )


def wires_of(module: nn.Module, origins: Origins) -> dict[str, Wires]:
    """Give each site's wires, or why it has none, by what was seen in a pass of the module.

    >>> import torch
    >>> from training_health.relu.sites import ReLUSites
    >>> net, sites = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)), ReLUSites()
    >>> sites.attach(net); sites.begin_pass(); _ = net(torch.ones(1, 1, 4, 4)); sites.detach()
    >>> wires = wires_of(net, sites.origins)["1"]
    >>> wires.feed.weight, wires.feed.rows, wires.uses[0].weight, wires.uses[0].units
    ('0.weight', [0, 1], '3.weight', [0, 0, 0, 0, 1, 1, 1, 1])
    """
    names = {id(tensor): name for name, tensor in [*module.named_parameters(), *module.named_buffers()]}
    found = {}
    for site, feed in origins.feeds.items():
        uses = origins.uses.get(site, [])
        obstacle = _obstacle(site, origins, feed, uses, names)
        found[site] = Wires(obstacle=obstacle) if feed is None or obstacle else _named(feed, uses, names)
    return found


def _obstacle(site: str, origins: Origins, feed: Feed | None, uses: list[Feed], names: Mapping[int, str]) -> str:
    if feed is None or feed.unit_dim or id(feed.weight) not in names:
        return "no convolution or linear layer was seen to feed it alone"
    if reason := origins.taken.get(site) or origins.taken.get(feed.call):
        return reason
    if any(use.unit_dim or id(use.weight) not in names for use in uses):
        return "a layer that is no convolution or linear one of the module takes its values"
    weights = [feed.weight, *(use.weight for use in uses)]
    added = [*feed.biases, *(part for norm in feed.norms for part in norm[:4])]
    if len(feed.biases) > 1 or any(tensor is not None and id(tensor) not in names for tensor in added):
        return "its bias or normalisation is no parameter of the module"
    calls = [other.call for other in origins.feeds.values() if other is not None]
    own = [*weights, *(norm.own for norm in feed.norms if norm.own is not None)]
    shared = [tensor for tensor in own if origins.calls[id(tensor)] > 1]
    if shared or calls.count(feed.call) > 1:
        return f"{names[id((shared or own)[0])]} is used more than once"
    # A mean and a variance never require a gradient; they describe the weights that a unit has had, and go with these.
    learned = [*weights, *feed.biases, *(part for norm in feed.norms for part in (norm.weight, norm.bias))]
    if frozen := [names[id(part)] for part in learned if part is not None and not part.requires_grad]:
        return f"{frozen[0]} is frozen"
    return "" if uses else "no convolution or linear layer was seen to take it in"


def _named(feed: Feed, uses: list[Feed], names: Mapping[int, str]) -> Wires:
    def name(tensor: Tensor | None) -> str | None:
        return None if tensor is None else names[id(tensor)]

    norms = tuple(NormNames(*map(name, (norm.weight, norm.bias, norm.mean, norm.var))) for norm in feed.norms)
    bias = name(feed.biases[0]) if feed.biases else None
    taken = [Use(names[id(use.weight)], use.source.owners(), use.groups) for use in uses if use.source is not None]
    return Wires(FeedNames(names[id(feed.weight)], bias, list(range(feed.units)), norms), taken)
