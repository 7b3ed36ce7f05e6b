"""What one window says about dead units: as scalars, records, plain values and words, with short names for sites."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from training_health.log_format import Record
from training_health.relu.unit_counts import SiteCounts, WindowCounts, combined

# What the monitor logs beside the sites under the same prefix.
RESERVED = {"total", "deaths", "revivals", "n"}
_WINDOWS = {"validation": "validation examples", "train": "training examples"}


class WindowPart(NamedTuple):
    """What one rank saw in a window."""

    counts: WindowCounts
    never_zero: Mapping[str, str]
    unwatched: Mapping[str, str]


@dataclass(frozen=True)
class DeadReLUReport:
    """All sites' counts over one window, and which units were dead in the window before."""

    window: str  # "validation", "train" or "given"
    examples: float  # NaN where a batch hid its size
    rare_below: float
    sites: Mapping[str, SiteCounts]  # by short name, in forward order
    previously_dead: Mapping[str, list[int]]
    never_zero: Mapping[str, str]  # activations whose units cannot die, by site
    unwatched: Mapping[str, str]  # name: reason

    @classmethod
    def of(
        cls,
        parts: Iterable[WindowPart],
        names: dict[str, str],
        window: str,
        rare_below: float,
        previously_dead: Mapping[str, list[int]],
    ) -> DeadReLUReport:
        """Put the ranks' parts together.

        Args:
            parts: Of every rank.
            names: Short names by qualified name, completed here: what is in it stays.
            window: As the attribute.
            rare_below: As the attribute.
            previously_dead: As the attribute.
        """
        parts = list(parts)
        never_zero = {site: kind for part in parts for site, kind in part.never_zero.items()}
        unwatched = {name: reason for part in parts for name, reason in part.unwatched.items()}
        sizes: dict[str, int] = {}
        for site, sums in ((site, sums) for part in parts for site, sums in part.counts.sites.items()):
            if sizes.setdefault(site, sums.units) != sums.units:
                unwatched.setdefault(site, "its number of units differs between processes")
        counts = combined(part.counts.without(unwatched) for part in parts)
        counted = counts.sites
        if not names:
            names.update(zip(counted, shorten(list(counted)), strict=True))
        for site in counted:  # one that comes later keeps its qualified name, so that no other name has to change
            names.setdefault(site, site)
        return cls(
            window=window,
            examples=counts.examples,
            rare_below=rare_below,
            sites={names[site]: sums for site, sums in counted.items()},
            previously_dead=previously_dead,
            never_zero=dict(zip(shorten(list(never_zero)), never_zero.values(), strict=True)),
            unwatched=unwatched,
        )

    @property
    def units(self) -> int:
        """Number of units in the network."""
        return sum(site.units for site in self.sites.values())

    @property
    def not_a_number(self) -> int:
        """Number of units that gave NaN or infinity: neither dead nor alive."""
        return sum(len(site.not_a_number) for site in self.sites.values())

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
        deaths = revivals = 0
        for name, site in self.sites.items():
            now, before = set(site.dead), set(self.previously_dead.get(name, site.dead))
            deaths, revivals = deaths + len(now - before), revivals + len(before - now - set(site.not_a_number))
        return deaths, revivals

    def scalars(self) -> dict[str, float]:
        """Values by logged key, fractions of the units that gave numbers; NaN where unknown."""
        values: dict[str, float] = {
            "dead_relu/total": _fraction(self.dead, self.units - self.not_a_number),
            "rare_relu/total": _fraction(self.rare, self.units - self.not_a_number),
            "dead_relu/n": self.examples,
        }
        if self.changes is not None:
            values["dead_relu/deaths"], values["dead_relu/revivals"] = self.changes
        for name, site in self.sites.items():
            values[f"dead_relu/{name}"] = _fraction(len(site.dead), len(site.known))
            values[f"rare_relu/{name}"] = _fraction(len(site.rare(self.rare_below)), len(site.known))
            values[f"sparsity/{name}"] = site.sparsity
        return values

    def records(self) -> Iterator[Record]:
        """One ``activity`` record per site: ``[n, activity of each unit]``; NaN where unknown or not a number."""
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
            "n": None if math.isnan(self.examples) else self.examples,
            "units": self.units,
            "dead": self.dead,
            "dead_fraction": self.dead / known if (known := self.units - self.not_a_number) else None,
            "not_a_number": self.not_a_number,
            "rare": self.rare,
            "deaths": deaths,
            "revivals": revivals,
            "sites": {
                name: {
                    "units": site.units,
                    "dead": len(site.dead),
                    "dead_units": site.dead,
                    "not_a_number": len(site.not_a_number),
                    "rare": len(site.rare(self.rare_below)),
                    "sparsity": site.sparsity if site.known else None,
                    "first_layer": site.first_layer,
                }
                for name, site in self.sites.items()
            },
            "cannot_die": dict(self.never_zero),
            "unwatched": dict(self.unwatched),
        }


def _on(report: DeadReLUReport) -> str:
    count = "an unknown number of" if math.isnan(report.examples) else f"{report.examples:,}"
    return f"on {count} {_WINDOWS.get(report.window, 'examples')}"


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def sentence(report: DeadReLUReport | None) -> str:
    """Say what percentage of the network is dead."""
    if report is None:
        return "Dead units were not counted: no validation pass has run to its end."
    window, known = _on(report), report.units - report.not_a_number
    if not report.sites:
        text = f"No ReLU was seen ({window})."
    elif not known:
        text = f"Whether units are dead is unknown: all {report.units:,} gave NaN or infinity ({window})."
    else:
        sites = ", ".join(f"{name} {len(site.dead)}/{len(site.known)}" for name, site in report.sites.items())
        text = f"{100 * report.dead / known:.1f} % of the network is dead ({report.dead} of {known:,} units, {window})"
        text += f": {sites}."
        if report.not_a_number:
            text += f" Left out, since they gave NaN or infinity: {report.not_a_number:,} units."
    for label, named in (("Cannot die", report.never_zero), ("Not counted", report.unwatched)):
        if named:
            text += f" {label}: " + ", ".join(f"{name} ({what})" for name, what in named.items()) + "."
    return text


def table(report: DeadReLUReport) -> str:
    """Lay the counts out in a line per site, under the sentence."""
    lines: list[tuple[str, ...]] = [("site", "units", "dead", "rare", "not a number", "dead units")]
    for name, site in report.sites.items():
        numbers = (site.units, len(site.dead), len(site.rare(report.rare_below)), len(site.not_a_number))
        first = [str(unit) for unit in site.dead[:8]] + (["..."] if len(site.dead) > 8 else [])
        lines.append((name, *map(str, numbers), ", ".join(first)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join(
            cell.rjust(w) if 0 < i < 5 else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([sentence(report), *(row.rstrip() for row in rows if report.sites)])


def shorten(names: Sequence[str]) -> list[str]:
    """Drop from dotted names what all of them have in common.

    The last segment goes if it is the same everywhere and what remains is not empty and still tells the names apart;
    then the leading segments that are the same everywhere, as long as every name keeps one and none is a mere number.

    Args:
        names: Distinct names in forward order.

    Returns:
        The short names, distinct, in the same order.

    >>> shorten(["net.conv1.relu", "net.fc1.relu"])
    ['conv1', 'fc1']
    >>> shorten(["net.relu", "net.layer1.0.relu", "net.layer1.0.relu:2"])
    ['relu', 'layer1.0.relu', 'layer1.0.relu:2']
    >>> shorten(["model.net.1", "model.net.3"]), shorten(["1", "3"])
    (['net.1', 'net.3'], ['relu.1', 'relu.3'])
    """
    parts = [name.split(".") for name in names]
    heads = [part[:-1] for part in parts]
    distinct = len({tuple(head) for head in heads}) == len(heads)
    if len({part[-1] for part in parts}) == 1 and all(heads) and distinct:
        parts = heads
    while (
        parts
        and all(len(part) > 1 for part in parts)
        and len({part[0] for part in parts}) == 1
        and not any(_is_number(".".join(part[1:])) for part in parts)
    ):
        parts = [part[1:] for part in parts]
    short = [".".join(part) for part in parts]
    taken = RESERVED.union(short)

    def renamed(name: str) -> str:
        while name in taken:
            name = f"relu.{name}"
        return name

    return [renamed(name) if name in RESERVED or _is_number(name) else name for name in short]


def _is_number(name: str) -> bool:
    return re.fullmatch(r"\d+(:\d+)?", name) is not None
