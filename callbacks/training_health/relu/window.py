"""What one window says about dead units: as scalars, records, plain values and words, with short names for sites."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from statistics import median
from typing import Any, NamedTuple

from training_health.log_format import CAUSE_FIELDS, CAUSE_WORDS, CAUSES, WINDOW_COLUMNS, Record
from training_health.relu.causes import BORN, History, Verdict, joined, verdicts
from training_health.relu.pre_activations import SiteLook
from training_health.relu.snapshot import Snapshot
from training_health.relu.sub_windows import SubWindows, sub_windows
from training_health.relu.unit_counts import SiteCounts, WindowCounts, combined

# What the monitor logs beside the sites under the same prefix.
RESERVED = {"total", "deaths", "revivals", "n"}
_WINDOWS = {"validation": "validation examples", "train": "training examples"}


class WindowPart(NamedTuple):
    """What one rank saw in a window."""

    counts: WindowCounts
    never_zero: Mapping[str, str]
    unwatched: Mapping[str, str]
    snapshot: Snapshot | None = None


@dataclass(frozen=True)
class Start:
    """A window before the first step, of all ranks, with what it says of the windows to come; by qualified name."""

    counts: WindowCounts
    history: History

    @classmethod
    def of(cls, parts: Iterable[WindowCounts | None]) -> Start | None:
        """Put the ranks' parts together, None of one without a batch; None where all are."""
        known = [part for part in parts if part is not None]
        if not known:
            return None
        counts, history = combined(known), History()
        for site, sums in counts.sites.items():
            history.add(site, sums, joined_at(known, site), BORN)
        return cls(counts, history)

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        sites = {site: asdict(sums) for site, sums in self.counts.sites.items()}
        return {"examples": self.counts.examples, "sites": sites, "history": self.history.state_dict()}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Start:
        """The reverse of `state_dict`."""
        sites = {site: SiteCounts(**sums) for site, sums in state["sites"].items()}
        return cls(WindowCounts(state["examples"], sites), History(**state["history"]))


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
    verdicts: Mapping[str, Mapping[int, Verdict]] = field(default_factory=dict)  # by site, of dead units and of NaN
    by_examples: SubWindows | None = None  # None where unknown
    start: WindowCounts | None = None  # before the first step, by short name; None where unknown

    @classmethod
    def of(
        cls,
        parts: Iterable[WindowPart],
        names: dict[str, str],
        window: str,
        rare_below: float,
        previously_dead: Mapping[str, list[int]],
        history: History | None = None,
        epoch: float = math.nan,
        start: Start | None = None,
    ) -> DeadReLUReport:
        """Put the ranks' parts together.

        Args:
            parts: Of every rank.
            names: Short names by qualified name, completed here: what is in it stays.
            window: As the attribute.
            rare_below: As the attribute.
            previously_dead: As the attribute.
            history: What the windows before say, to which this one is added; None for a window on its own.
            epoch: The window's.
            start: Where no window came between, what was before the first step.
        """
        parts = list(parts)
        never_zero = {site: kind for part in parts for site, kind in part.never_zero.items()}
        unwatched = {name: reason for part in parts for name, reason in part.unwatched.items()}
        sizes: dict[str, int] = {}
        for site, sums in ((site, sums) for part in parts for site, sums in part.counts.sites.items()):
            if sizes.setdefault(site, sums.units) != sums.units:
                unwatched.setdefault(site, "its number of units differs between processes")
        counts = combined([part.counts.without(unwatched) for part in parts])
        counted = counts.sites
        if not names:
            names.update(zip(counted, shorten(list(counted)), strict=True))
        for site in counted:  # one that comes later keeps its qualified name, so that no other name has to change
            names.setdefault(site, site)
        history = History() if history is None else history
        before = None
        if start is not None:
            sites = start.counts.sites
            for site, sums in sites.items():
                if site in counted and sums.units == counted[site].units:
                    history.take(names[site], start.history, site)
            before = replace(start.counts, sites={names.get(site, site): sums for site, sums in sites.items()})
        found = {}
        for site, sums in counted.items():
            name, look = names[site], joined_at([part.counts for part in parts], site)
            history.add(name, sums, look, epoch)
            read = set(counted[look.source.site].dead if look.source and look.source.site in counted else ())
            found[name] = verdicts(sums, look, read, history.since[name], history.change[name])
        certain = sum(verdict.bound <= 0 for of_site in found.values() for verdict in of_site.values())
        left_out = {site: sums.not_a_number for site, sums in counted.items()}
        by_examples = sub_windows([part.counts for part in parts], left_out, counts.examples)
        return cls(
            window=window,
            examples=counts.examples,
            rare_below=rare_below,
            sites={names[site]: sums for site, sums in counted.items()},
            previously_dead=previously_dead,
            never_zero=dict(zip(shorten(list(never_zero)), never_zero.values(), strict=True)),
            unwatched=unwatched,
            verdicts=found,
            by_examples=by_examples and by_examples._replace(certain=certain),
            start=before,
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
        """Per site an ``activity`` record and, where any unit is dead, a ``cause``; then the ``window``."""
        yield from self._activities("activity", self.sites, self.examples, self.window)
        for name, found in self.verdicts.items():
            if found:
                rows = zip(*(_numbers(found.get(unit)) for unit in range(self.sites[name].units)), strict=True)
                content = {"site": name, "units": self.sites[name].units}
                content |= {"fields": list(CAUSE_FIELDS), "causes": list(CAUSES)}
                n = self.sites[name].examples or self.examples
                yield f"cause/{name}", "cause", [n, *chain.from_iterable(rows)], content
        if self.by_examples is not None:
            pairs = (n for pair in zip(self.by_examples.examples, self.by_examples.dead, strict=True) for n in pair)
            values = [self.examples, *pairs, self.by_examples.units, *self.by_examples.prediction]
            yield "window", "window", values, {"columns": list(WINDOW_COLUMNS)}

    def start_records(self) -> Iterator[Record]:
        """One ``start`` record per site: the activities before the first step, where they are known."""
        if self.start is not None:
            sites = {name: site for name, site in self.start.sites.items() if name in self.sites}
            yield from self._activities("start", sites, self.start.examples, "validation")

    def _activities(self, kind: str, sites: Mapping[str, SiteCounts], examples: float, window: str) -> Iterator[Record]:
        order = {name: index for index, name in enumerate(self.sites)}
        for name, site in sites.items():
            content = {
                "site": name,
                "index": order[name],
                "units": site.units,
                "positions": site.positions,
                "window": window,
                "activation": site.activation,
                "first_layer": site.first_layer,
                "rare_below": self.rare_below,
            }
            yield f"{kind}/{name}", kind, [site.examples or examples, *site.activity], content

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
                    "n": None if math.isnan(n := site.examples or self.examples) else n,
                    "units": site.units,
                    "dead": len(site.dead),
                    "dead_units": site.dead,
                    "not_a_number": len(site.not_a_number),
                    "rare": len(site.rare(self.rare_below)),
                    "sparsity": site.sparsity if site.known else None,
                    "first_layer": site.first_layer,
                    **_causes_as_dict(site.dead, self.verdicts.get(name, {})),
                }
                for name, site in self.sites.items()
            },
            "by_examples": self.by_examples and self.by_examples.as_dict(),
            "start_n": None if self.start is None or math.isnan(self.start.examples) else self.start.examples,
            "cannot_die": dict(self.never_zero),
            "unwatched": dict(self.unwatched),
        }


def joined_at(parts: Iterable[WindowCounts], site: str) -> SiteLook:
    """Put together what every rank that reached a site saw go into it."""
    return joined(part.looks[site] for part in parts if site in part.looks)


def _numbers(verdict: Verdict | None) -> list[float]:
    return [math.nan] * len(CAUSE_FIELDS) if verdict is None else verdict.numbers


def _causes_as_dict(dead: list[int], found: Mapping[int, Verdict]) -> dict[str, Any]:
    of_dead = [found[unit] for unit in dead if unit in found]
    depths = [verdict.depth for verdict in of_dead if not math.isnan(verdict.depth)]
    since = Counter(verdict.since for verdict in of_dead if not math.isnan(verdict.since))
    return {
        "causes": dict(Counter(verdict.cause for verdict in of_dead).most_common()),
        "median_depth": median(depths) if depths else None,
        "born_dead": since[BORN] if since else None,
        "died_in_epoch": {str(int(epoch) + 1): count for epoch, count in sorted(since.items()) if epoch != BORN},
        "dead_unit_causes": [verdict.cause for verdict in of_dead],
        "dead_unit_depths": [None if math.isnan(verdict.depth) else verdict.depth for verdict in of_dead],
    }


_SITES_SAID, _EPOCHS_SAID = 3, 3  # in a sentence


def _cause_sentence(report: DeadReLUReport) -> str:
    """Say why units are dead and since when, for the sites with the most of them; empty if none is."""
    sites = sorted((name for name in report.sites if report.sites[name].dead), key=lambda n: -len(report.sites[n].dead))
    said = [_site_sentence(name, report.sites[name], report.verdicts.get(name, {})) for name in sites[:_SITES_SAID]]
    if len(sites) > _SITES_SAID:
        said.append(f"The summary has the causes at {len(sites) - _SITES_SAID} more sites.")
    return " ".join(said)


def _site_sentence(name: str, site: SiteCounts, found: Mapping[int, Verdict]) -> str:
    of_dead = [found[unit] for unit in site.dead if unit in found]
    reasons = []
    for cause, count in Counter(verdict.cause for verdict in of_dead).most_common():
        depths = [v.depth for v in of_dead if v.cause == cause and not math.isnan(v.depth)]
        shown = depths and cause in ("mean shift", "bias")
        reasons.append(f"{count} {CAUSE_WORDS[cause]}" + (f" (median depth {median(depths):.2g} sd)" if shown else ""))
    verb = "is" if len(site.dead) == 1 else "are"
    text = f"{len(site.dead)} of {len(site.known)} units of {name} {verb} dead: {', '.join(reasons)}"
    since = Counter(verdict.since for verdict in of_dead if not math.isnan(verdict.since))
    if since:
        born = since.pop(BORN, 0)
        epochs = since.most_common(_EPOCHS_SAID)
        times = [f"{born} born dead"] if born else []
        times += [f"{count} died in epoch {int(epoch) + 1}" for epoch, count in epochs]
        rest, first = since.total() - sum(count for _, count in epochs), len(of_dead) - since.total() - born
        times += [f"{rest} in other epochs"] if rest else []
        times += [f"{first} dead at the first count"] if first else []
        text += f"; {', '.join(times)}"
    return text + "."


def _examples_sentence(report: DeadReLUReport) -> str:
    """Say how the count falls with the examples, and what to expect of ten times as many; empty where unknown."""
    if report.by_examples is None or not report.dead:
        return ""
    n, expected, low, high = report.by_examples.prediction
    counts = zip(report.by_examples.dead, report.by_examples.examples, strict=True)
    seen = ", ".join(f"{dead} on {n:,}" for dead, n in counts)
    return f"Dead by examples seen: {seen}; expected on {n:,}: {expected} (95 %: {low} to {high})."


def _reach_sentence(report: DeadReLUReport) -> str:
    """Name sites that only some batches reached, those with the fewest first; empty if there are none."""
    fewer = {name: site.examples for name, site in report.sites.items() if 0 < site.examples < report.examples}
    if not fewer:
        return ""
    said = [f"{name} ({fewer[name]:,} examples)" for name in sorted(fewer, key=fewer.__getitem__)[:_SITES_SAID]]
    rest = len(fewer) - len(said)
    more = f" and {rest} other site{'s' * (rest > 1)}" if rest else ""
    return f"Only some batches reached {', '.join(said)}{more}."


def _on(report: DeadReLUReport) -> str:
    count = "an unknown number of" if math.isnan(report.examples) else f"{report.examples:,}"
    return f"on {count} {_WINDOWS.get(report.window, 'examples')}"


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def sentence(report: DeadReLUReport | None) -> str:
    """Say what percentage of the network is dead."""
    if report is None:
        return "Dead units were not counted: in this process no validation pass that ends an epoch has run to its end."
    window, known = _on(report), report.units - report.not_a_number
    if not report.sites:
        text = f"No ReLU was {'counted' if report.unwatched else 'seen'} ({window})."
    elif not known:
        text = f"Whether units are dead is unknown: all {report.units:,} gave NaN or infinity ({window})."
    else:
        sites = ", ".join(f"{name} {len(site.dead)}/{len(site.known)}" for name, site in report.sites.items())
        text = f"{100 * report.dead / known:.1f} % of the network is dead ({report.dead} of {known:,} units, {window})"
        text += f": {sites}."
        if report.not_a_number:
            text += f" Left out, since they gave NaN or infinity: {report.not_a_number:,} units."
        more = _cause_sentence(report), _reach_sentence(report), _examples_sentence(report)
        text = " ".join(part for part in (text, *more) if part)
    for label, named in (("Cannot die", report.never_zero), ("Not counted", report.unwatched)):
        if named:
            text += f" {label}: " + ", ".join(f"{name} ({what})" for name, what in named.items()) + "."
    return text


def table(report: DeadReLUReport) -> str:
    """Lay the counts out in a line per site, under the sentence."""
    lines: list[tuple[str, ...]] = [("site", "units", "dead", "rare", "not a number", "depth", "cause", "dead units")]
    for name, site in report.sites.items():
        numbers = (site.units, len(site.dead), len(site.rare(report.rare_below)), len(site.not_a_number))
        first = [str(unit) for unit in site.dead[:8]] + (["..."] if len(site.dead) > 8 else [])
        causes = _causes_as_dict(site.dead, report.verdicts.get(name, {}))
        why = ", ".join(f"{count} {cause}" for cause, count in causes["causes"].items())
        depth = "" if causes["median_depth"] is None else f"{causes['median_depth']:.2g}"
        lines.append((name, *map(str, numbers), depth, why, ", ".join(first)))
    return "\n".join([sentence(report), *(aligned(lines, 6) if report.sites else ())])


def aligned(rows: Sequence[Sequence[str]], text_from: int) -> list[str]:
    """Lines with the cells of a table below each other; numbers, between the first column and ``text_from``, right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = (zip(row, widths, range(len(row)), strict=True) for row in rows)
    return ["  ".join(c.rjust(w) if 0 < i < text_from else c.ljust(w) for c, w, i in row).rstrip() for row in cells]


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
