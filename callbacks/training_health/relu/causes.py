"""Why a unit is dead: rules over what went into it, the layer before it, and the windows before.

The first rule that holds names the cause. z is the unit's pre-activation over the window, w and b the incoming weights
and bias of the layer before it, behind a batch normalisation in eval mode folded: w s and (b - mean) s + beta, where
s = gamma / sqrt(var + eps).

1. *Not a number*: some z is NaN or infinite. IEEE 754: NaN propagates through sums and products.
2. *Dead inputs*: every input with a weight other than 0 comes out of a unit that is dead on the window too. So z = b.
3. *Killed* between two windows: it fired in the window before, and since then the incoming weights changed by at least
   their own norm, ||w' - w|| >= ||w||. Kept are only norm, sum and bias: with a = sum(w) / sqrt(m) over m inputs and
   c = sqrt(||w||^2 - a^2), (a' - a)^2 + (c' - c)^2 + (b' - b)^2 <= ||(w', b') - (w, b)||^2, by Pythagoras and the
   triangle inequality, so what is named is certain. Behind a batch normalisation also where (gamma, beta) did so.
4. *Any input*: sum of positive w x high + sum of negative w x low + b <= 0, where [low, high] is the range of all
   inputs of the layer over the window, with 0 in it where the layer pads. So z <= 0 for any input in that range, but
   for rounding: interval arithmetic (Moore, Interval Analysis, 1966; for networks Gowal et al. 2018, arXiv:1810.12715).
5. *Mean shift*, m = mean(z) - b = sum of w_i mean_i: max(z) - m > 0, so with centred inputs the unit would fire. LeCun,
   Bottou, Orr and Mueller 1998, Efficient BackProp, section 4.3, on why inputs should have mean 0. With a max-pool
   before the ReLU mean(z) is the pool's, which names this cause too seldom.
   *Bias*: max(z) - b > 0, so without it the unit would fire; behind a batch normalisation b is its beta.
   Where both hold, the larger of the shifts -m and -b is named.
6. Else *unknown*, as wherever the layer before cannot be followed (`feeds`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from training_health.log_format import CAUSES
from training_health.relu.feeds import NUMBERS
from training_health.relu.pre_activations import Moments, SiteLook, summed
from training_health.relu.unit_counts import SiteCounts

NAN = math.nan
BORN = -1  # died before the first step
# Of `feeds.NUMBERS`, what tells how far a layer's incoming weights changed: its own, and a batch normalisation's.
_LAYER, _NORM = ("along", "across", "layer_bias"), ("gain", "shift")
_WEIGHTS = [NUMBERS.index(name) for name in (*_LAYER, *_NORM)]
_ROUNDING = 0.02  # of the numbers that a bound is made of: more is another layer's
_TINY = float(np.finfo(np.float32).tiny)  # where rounding is no fraction of a number any more


class Verdict(NamedTuple):
    """Why one unit is dead, and the numbers that decided; as `log_format.CAUSE_FIELDS`, NaN where unknown."""

    cause: str = "unknown"
    depth: float = NAN
    top: float = NAN
    sd: float = NAN
    bound: float = NAN
    low: float = NAN
    high: float = NAN
    mean_shift: float = NAN
    bias: float = NAN
    weight_change: float = NAN
    since: float = NAN

    @property
    def numbers(self) -> list[float]:
        """The record's numbers, the cause as its code."""
        return [CAUSES.index(self.cause), *self[1:]]


def joined(looks: Iterable[SiteLook]) -> SiteLook:
    """Put the ranks' looks at one site together; units that fired on one rank only are left out later."""
    looks = list(looks)
    total = SiteLook(summed(look.moments for look in looks))
    known = all(len(look.numbers) for look in looks)
    if looks and known:
        lows, highs = [look.low for look in looks], [look.high for look in looks]
        total.low = min(lows) if not any(map(math.isnan, lows)) else NAN
        total.high = max(highs) if not any(map(math.isnan, highs)) else NAN
        total.numbers, total.source = looks[0].numbers, looks[0].source
        for look in looks:
            total.reads |= look.reads
    return total


@dataclass
class History:
    """What the windows before say, by site.

    Attributes:
        silent: Units that did not fire in the window before.
        since: In which epoch the units that were dead in the window before died; `BORN`, or NaN for unknown.
        change: By how much the incoming weights of those had changed then.
        weights: The numbers by which a change of the incoming weights is told, a row for each unit; none if unknown.
    """

    silent: dict[str, list[int]] = field(default_factory=dict)
    since: dict[str, dict[int, float]] = field(default_factory=dict)
    change: dict[str, dict[int, float]] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = {site: np.array(rows, dtype=float) for site, rows in self.weights.items()}

    def add(self, site: str, counts: SiteCounts, look: SiteLook, epoch: float) -> None:
        """Take the next window's numbers of a site; epoch `BORN` for the window before the first step."""
        weights = look.numbers[_WEIGHTS].T if len(look.numbers) else np.empty(0)
        silent, since, change = self.silent.get(site), self.since.get(site, {}), self.change.get(site, {})
        before = self.weights.get(site, np.empty(0))
        known = len(before) == len(weights) == counts.units
        new_since, new_change, dead = {}, {}, counts.dead
        for unit in dead:
            if unit in since:
                new_since[unit], new_change[unit] = since[unit], change.get(unit, NAN)
            elif silent is None or unit in silent:
                new_since[unit], new_change[unit] = BORN if epoch == BORN else NAN, NAN
            else:
                moved = weight_change(before[unit], weights[unit]) if known else NAN
                new_since[unit], new_change[unit] = epoch, moved
        self.silent[site] = sorted({*dead, *counts.not_a_number})
        self.since[site], self.change[site] = new_since, new_change
        self.weights[site] = weights

    def take(self, site: str, other: History, name: str) -> None:
        """Take over what another history says of a site, which it calls by another name."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine[site] = theirs[name]

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint: what makes the same again."""
        return {**vars(self), "weights": {site: rows.tolist() for site, rows in self.weights.items()}}


def weight_change(before: Sequence[float], after: Sequence[float]) -> float:
    """Give a lower bound on how far incoming weights moved, over their own norm; NaN if unknown, or they were 0.

    >>> weight_change([3.0, 4.0, 0.0, math.nan, math.nan], [3.0, -4.0, 0.0, math.nan, math.nan])
    1.6
    """
    ratios = [math.dist(before[part], after[part]) / (math.hypot(*before[part]) or NAN) for part in _PARTS]
    return max((ratio for ratio in ratios if not math.isnan(ratio)), default=NAN)


_PARTS = slice(0, len(_LAYER)), slice(len(_LAYER), None)


def verdicts(
    counts: SiteCounts,
    look: SiteLook,
    dead_before: set[int],
    since: Mapping[int, float],
    change: Mapping[int, float],
) -> dict[int, Verdict]:
    """Judge every unit of a site that is dead or not a number.

    Args:
        counts: Of the window.
        look: Of the window, all ranks joined.
        dead_before: The dead units of the site that the layer's inputs come out of.
        since: As in `History`.
        change: As in `History`.
    """
    found = {unit: Verdict("not a number") for unit in counts.not_a_number}
    maps = look.numbers[_BOUND].T.tolist() if len(look.numbers) else None
    for unit in counts.dead:
        numbers = maps[unit] if maps is not None else _UNKNOWN_MAP
        verdict = _without_cause(look, unit, numbers, change.get(unit, NAN), since.get(unit, NAN))
        found[unit] = Verdict(_cause(verdict, look, unit, dead_before), *verdict[1:])
    return found


_BOUND = [NUMBERS.index(name) for name in ("up", "down", "offset", "bias")]
_UNSEEN, _UNKNOWN_MAP = Moments(1, NAN, NAN, NAN), [NAN] * len(_BOUND)


def _without_cause(look: SiteLook, unit: int, numbers: Sequence[float], change: float, since: float) -> Verdict:
    """Give a unit's numbers; ``numbers``: those of its layer by `_BOUND`."""
    moments = look.moments.get(unit, _UNSEEN)
    top, sd = moments.top, moments.sd
    depth = abs(min(top, 0.0)) / sd if sd > 0 and not moments.is_constant else NAN
    up, down, offset, bias = numbers
    bound = up * look.high + down * look.low + offset
    size = max(abs(up), abs(down)) * max(abs(look.low), abs(look.high)) + abs(offset) + _TINY
    least = up * look.low + down * look.high + offset
    if top > bound + _ROUNDING * size or moments.mean < least - _ROUNDING * size:
        # Something else came between that layer and the ReLU.
        return Verdict("unknown", depth, top, sd, weight_change=change, since=since)
    shift = moments.mean - bias
    return Verdict("unknown", depth, top, sd, bound, look.low, look.high, shift, bias, change, since)


def _cause(of: Verdict, look: SiteLook, unit: int, dead_before: set[int]) -> str:
    if unit in look.moments and not math.isfinite(of.top):
        return "not a number"
    reads = look.reads.get(unit)
    if reads and dead_before.issuperset(reads):
        return "dead inputs"
    if of.weight_change >= 1:
        return "killed"
    if of.bound <= 0:
        return "any input"
    if of.top > of.mean_shift and not (of.top > of.bias and of.bias < of.mean_shift):
        return "mean shift"
    return "bias" if of.top > of.bias else "unknown"
