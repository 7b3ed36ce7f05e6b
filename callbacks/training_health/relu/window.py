"""What one window says about dead units: as scalars, records, plain values and words, with short names for sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training_health.log_format import Record
from training_health.relu.unit_counts import SiteCounts

# What the monitor logs beside the sites under the same prefix.
_RESERVED = {"total", "deaths", "revivals", "n"}


@dataclass(frozen=True)
class DeadReLUReport:
    """All sites' counts over one window, and which units were dead in the window before."""

    window: str
    examples: float  # NaN where unknown
    rare_below: float
    sites: Mapping[str, SiteCounts]  # by short name, in forward order
    previously_dead: Mapping[str, list[int]]
    never_zero: Mapping[str, str]  # activations whose units cannot die, by site
    unwatched: Mapping[str, str]  # name: reason

    @property
    def units(self) -> int:
        """Number of units in the network."""
        return sum(site.units for site in self.sites.values())

    @property
    def dead(self) -> int:
        """Number of dead units in the network."""
        return sum(len(site.dead) for site in self.sites.values())

    @property
    def rare(self) -> int:
        """Number of rare units in the network."""
        return sum(len(site.rare(self.rare_below)) for site in self.sites.values())

    @property
    def changes(self) -> tuple[int, int] | None:
        """Deaths and revivals since the window before; None without one."""
        if not self.previously_dead:
            return None
        pairs = [(set(site.dead), set(self.previously_dead.get(name, site.dead))) for name, site in self.sites.items()]
        return sum(len(now - before) for now, before in pairs), sum(len(before - now) for now, before in pairs)

    def scalars(self) -> dict[str, float]:
        """Values by logged key."""
        values: dict[str, float] = {
            "dead_relu/total": self.dead / self.units,
            "rare_relu/total": self.rare / self.units,
            "dead_relu/n": self.examples,
        }
        if self.changes is not None:
            values["dead_relu/deaths"], values["dead_relu/revivals"] = self.changes
        for name, site in self.sites.items():
            values[f"dead_relu/{name}"] = len(site.dead) / site.units
            values[f"rare_relu/{name}"] = len(site.rare(self.rare_below)) / site.units
            values[f"sparsity/{name}"] = site.sparsity
        return values

    def records(self) -> Iterator[Record]:
        """One ``activity`` record per site: ``[n, activity of each unit]``."""
        for index, (name, site) in enumerate(self.sites.items()):
            content = {
                "site": name,
                "index": index,
                "units": site.units,
                "positions": site.positions,
                "window": self.window,
                "activation": site.activation,
                "first_layer": site.first_layer,
                "rare_below": self.rare_below,
            }
            yield f"activity/{name}", "activity", [self.examples, *site.activity], content

    def coverage_records(self) -> Iterator[Record]:
        """One ``cannot_die`` record: the activations that cannot die, and what is not watched."""
        content = {
            "sites": [{"site": site, "activation": kind} for site, kind in self.never_zero.items()],
            "unwatched": [{"name": name, "reason": reason} for name, reason in self.unwatched.items()],
        }
        yield "cannot_die", "cannot_die", [self.examples], content

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        deaths, revivals = self.changes or (None, None)
        return {
            "window": self.window,
            "n": self.examples,
            "units": self.units,
            "dead": self.dead,
            "dead_fraction": self.dead / self.units if self.units else None,
            "rare": self.rare,
            "deaths": deaths,
            "revivals": revivals,
            "sites": {
                name: {
                    "units": site.units,
                    "dead": len(site.dead),
                    "dead_units": site.dead,
                    "rare": len(site.rare(self.rare_below)),
                    "sparsity": site.sparsity,
                    "first_layer": site.first_layer,
                }
                for name, site in self.sites.items()
            },
            "cannot_die": dict(self.never_zero),
            "unwatched": dict(self.unwatched),
        }


def sentence(report: DeadReLUReport | None) -> str:
    """Say what percentage of the network is dead."""
    if report is None:
        return "Dead units were not counted: no validation pass has run to its end."
    window = f"on {report.examples:,} {'validation' if report.window == 'validation' else 'training'} examples"
    if report.sites:
        sites = ", ".join(f"{name} {len(site.dead)}/{site.units}" for name, site in report.sites.items())
        percent = 100 * report.dead / report.units
        text = f"{percent:.1f} % of the network is dead ({report.dead} of {report.units:,} units, {window}): {sites}."
    else:
        text = f"No ReLU was seen ({window})."
    for label, named in (("Cannot die", report.never_zero), ("Not counted", report.unwatched)):
        if named:
            text += f" {label}: " + ", ".join(f"{name} ({what})" for name, what in named.items()) + "."
    return text


def shorten(names: Sequence[str]) -> list[str]:
    """Drop from dotted names what all of them have in common.

    The last segment goes if it is the same everywhere and what remains is not empty and still tells the names apart;
    then the leading segments that are the same everywhere, as long as every name keeps one.

    Args:
        names: Distinct names in forward order.

    Returns:
        The short names, distinct, in the same order.

    >>> shorten(["net.conv1.relu", "net.fc1.relu"])
    ['conv1', 'fc1']
    >>> shorten(["net.relu", "net.layer1.0.relu", "net.layer1.0.relu:2"])
    ['relu', 'layer1.0.relu', 'layer1.0.relu:2']
    """
    parts = [name.split(".") for name in names]
    heads = [part[:-1] for part in parts]
    distinct = len({tuple(head) for head in heads}) == len(heads)
    if len({part[-1] for part in parts}) == 1 and all(heads) and distinct:
        parts = heads
    while parts and all(len(part) > 1 for part in parts) and len({part[0] for part in parts}) == 1:
        parts = [part[1:] for part in parts]
    short = [".".join(part) for part in parts]
    taken = _RESERVED.union(short)

    def renamed(name: str) -> str:
        while name in taken:
            name = f"relu.{name}"
        return name

    return [renamed(name) if name in _RESERVED else name for name in short]
