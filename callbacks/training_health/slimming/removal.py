"""Remove dead units from a copy of a model, and prove on the window that the outputs stay the same."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from training_health.batches import count_examples
from training_health.errors import UserError
from training_health.inspection import inspect, run_batch, to_device, untouched
from training_health.relu.window import aligned
from training_health.slimming.rewiring import NotTraceableError, Plan, Wiring, tensors_of, watched_inputs
from training_health.torch_private import is_compiled

Units = dict[str, list[int]]


@dataclass(frozen=True)
class KeptUnits:
    """Dead units that stay, and why."""

    site: str
    units: list[int]
    reason: str


@dataclass(frozen=True)
class Slimmed:
    """What `slim` made; printed, it is a sentence, a table with a line per site, and what was kept and why."""

    model: nn.Module  # the copy without the removed units
    removed: Units  # by site
    kept: list[KeptUnits]
    sizes: dict[str, int]  # by site, its units before
    examples: float  # NaN where a batch hid its size
    parameters: tuple[int, int]  # elements before and after
    change: float  # largest absolute change of any output on the window
    largest_output: float
    certified: bool

    def __str__(self) -> str:
        """Lay it out as a table."""
        before, after = self.parameters
        number, n = sum(map(len, self.removed.values())), self.examples
        on = "an unknown number of examples" if math.isnan(n) else f"{n:,} example{'s' * (n != 1)}"
        what, are = ("unit", "is") if number == 1 else ("units", "are")
        dead = f"{are} dead for any input; on {on}" if self.certified else f"{are} dead on {on}; there"
        smaller = f"{before:,} -> {after:,} parameters ({(after - before) / max(before, 1):+.1%})"
        lines = [
            f"{smaller}: without {number} {what} that {dead} no output changes by more than {self.change:.2g} "
            f"(largest output {self.largest_output:.3g})."
        ]
        stay = {site: sum(len(kept.units) for kept in self.kept if kept.site == site) for site in self.sizes}
        rows: list[tuple[str, ...]] = [("site", "units", "removed", "left", "dead, kept")]
        for site, units in self.sizes.items():
            gone = len(self.removed.get(site, []))
            rows.append((site, *map(str, (units, gone, units - gone, stay[site]))))
        lines += aligned(rows, len(rows[0]))
        lines += [f"Kept, {kept.site} {_numbers(kept.units)}: {kept.reason}." for kept in self.kept]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: all but the model."""
        return {
            "n": None if math.isnan(self.examples) else self.examples,
            "certified": self.certified,
            "parameters_before": self.parameters[0],
            "parameters_after": self.parameters[1],
            "largest_change": self.change,
            "largest_output": self.largest_output,
            "removed": self.removed,
            "kept": [vars(kept) for kept in self.kept],
        }


def slim(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    units: Mapping[str, Iterable[int]] | None = None,
    certified_for: tuple[float, float] | None = None,
    tolerance: float = 1e-5,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    count: Callable[[Any], int | None] = count_examples,
) -> Slimmed:
    """Remove the units that are dead on some batches from a copy of a model, and prove that its outputs stay the same.

    A unit whose ReLU gives 0 on every example adds a constant to what follows, so without it the outputs are the same
    on these examples, to rounding. Torch-Pruning's dependency graph (Fang et al. 2023, arXiv:2301.12900) finds the
    layers that get smaller. A unit goes only where every layer that adds it up was seen to get a constant of it on the
    window; one that is not 0, as behind a batch normalisation that follows the ReLU, moves into that layer's bias. Then
    model and copy run on the window once more: if an output differs by more than ``tolerance``, nothing of what caused
    it is removed. On other examples a removed unit might have fired, which certified ones cannot.

    What stays is named with a reason: units that an addition joins with live ones, layers that are used twice or share
    weights, grouped convolutions (but depthwise ones), outputs of the model, norms over several units, sites whose
    layer cannot be told, and the last unit of a layer.

    Cost: three evaluations of the window, a forward pass with gradients, and copies of the model. Needs Torch-Pruning
    (``pip install "torch-pruning>=1.6,<2"``) and torch 2.2 or newer.

    Args:
        model: Any module; it stays as it is.
        batches: The window: any iterable, such as a DataLoader. One that can be read once only is held in memory.
        units: Units to remove, by the sites' names as `inspect` prints them. Default: all that are dead.
        certified_for: Smallest and largest possible element of the inputs: remove only units that are dead for all such
            inputs, by an interval bound on the pre-activation, carried from layer to layer.
        tolerance: Largest change of an output, relative to the largest absolute value in that output's tensor.
        forward: As for `inspect`.
        count: As for `inspect`.

    Returns:
        A `Slimmed`: ``model`` is the copy, with the modes of the original; printed it is a table; ``to_dict()`` gives
        plain values.

    Raises:
        UserError: A unit of ``units`` fires on the window, or is not there; ``certified_for`` is no range, or an input
            is out of it; ``tolerance`` is negative; there is no example; the model is compiled, or returns no tensor.
        ModuleNotFoundError: Without Torch-Pruning.

    Example::

        >>> import torch
        >>> from torch import nn
        >>> from training_health import slim
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).requires_grad_(False)
        >>> _ = net[0].weight.fill_(1.0)
        >>> net[0].bias[:] = torch.tensor([1.0, -99.0, -99.0, 1.0])
        >>> slimmed = slim(net, [torch.rand(20, 3)])
        >>> slimmed.removed, slimmed.parameters, slimmed.model[0]
        ({'relu.1': [1, 2]}, (26, 14), Linear(in_features=3, out_features=2, bias=True))
    """
    import torch_pruning  # noqa: F401 - fail before the window is evaluated

    if certified_for is not None and not (len(certified_for) == 2 and certified_for[0] <= certified_for[1]):
        raise UserError(
            f"`certified_for` is {certified_for!r}: give the smallest and the largest element of the inputs, "
            "such as (0, 1)."
        )
    if not tolerance >= 0:
        raise UserError(f"`tolerance` is {tolerance!r}: give a relative change of 0 or more, such as 1e-5.")
    if any(is_compiled(module) for module in model.modules()):
        raise UserError("The model is compiled: slim the module that torch.compile was given, then compile again.")
    return _Slimming(model, batches, certified_for, tolerance, forward or run_batch, count).run(units)


@dataclass
class _Attempt:
    """A copy without some units, and how its outputs differ on the window."""

    model: nn.Module
    removed: Units
    kept: list[KeptUnits]
    change: float = 0.0
    largest: float = 0.0
    problem: str = ""  # why it is not proved


class _Slimming:
    """One call of `slim`."""

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        certified_for: tuple[float, float] | None,
        tolerance: float,
        forward: Callable[[nn.Module, Any], Any],
        count: Callable[[Any], int | None],
    ) -> None:
        self._given, self._model = model, copy.deepcopy(model)
        self._batches = list(batches) if iter(batches) is batches else batches
        self._certified_for, self._tolerance, self._forward = certified_for, tolerance, forward
        with watched_inputs(self._model) as self._ranges:
            self._report = inspect(self._model, self._batches, forward=forward, count=count).report

    def run(self, units: Mapping[str, Iterable[int]] | None) -> Slimmed:
        sites = self._report.sites
        dead = {site: counts.dead for site, counts in sites.items()}
        chosen = dead if units is None else self._listed(units)
        chosen = {site: indices for site, indices in chosen.items() if indices}
        found = self._attempt(chosen)
        if found.problem and len(found.removed) > 1:  # some of them are to blame
            alone = {site: self._attempt({site: indices}) for site, indices in chosen.items()}
            found = self._attempt({site: chosen[site] for site, attempt in alone.items() if not attempt.problem})
            for site, one in alone.items():
                if one.problem:
                    found.kept += [*one.kept, *(KeptUnits(site, gone, one.problem) for gone in one.removed.values())]
        if found.problem:
            kept = [*found.kept, *(KeptUnits(site, gone, found.problem) for site, gone in found.removed.items())]
            found = self._attempt({})
            found.kept = kept
        for module, original in zip(found.model.modules(), self._given.modules(), strict=True):
            module.training = original.training
        return Slimmed(
            found.model,
            found.removed,
            found.kept,
            {site: counts.units for site, counts in sites.items()},
            self._report.examples,
            (_elements(self._given), _elements(found.model)),
            found.change,
            found.largest,
            self._certified_for is not None,
        )

    def _listed(self, units: Mapping[str, Iterable[int]]) -> Units:
        """The caller's units; UserError names those that are not dead."""
        listed, alive = {site: sorted(set(indices)) for site, indices in units.items()}, []
        for site, indices in listed.items():
            counts = self._report.sites.get(site)
            if counts is None:
                raise UserError(f"There is no ReLU site {site!r}. Sites: {', '.join(self._report.sites)}.")
            if wrong := [unit for unit in indices if not 0 <= unit < counts.units]:
                raise UserError(f"{site} has units 0 to {counts.units - 1}, not {_numbers(wrong)}.")
            activity, fires = counts.activity, set(indices) - set(counts.dead)
            alive += [f"{site} {unit} (activity {activity[unit]:.3g})" for unit in sorted(fires)]
        if alive:
            raise UserError(f"Not dead on these examples, so not removed: {', '.join(alive)}. Take them off the list.")
        return listed

    def _attempt(self, chosen: Units) -> _Attempt:
        """Remove what can be removed of the chosen units, and run original and copy on the window."""
        made = _Attempt(copy.deepcopy(self._model), {}, [])
        if chosen:
            self._remove(made, chosen)
        with untouched(self._model) as device, untouched(made.model), torch.no_grad():
            try:
                self._compare(made, device)
            except UserError:
                raise
            except Exception as error:  # whatever code with fixed sizes makes of other ones
                made.problem = f"the model does not run without these units: {error}".splitlines()[0].rstrip(".")
        return made

    def _remove(self, made: _Attempt, chosen: Units) -> None:
        with untouched(made.model) as device:
            batch = to_device(next(iter(self._batches)), device)
            try:
                wiring = Wiring(made.model, batch, self._forward, self._report.unwatched)
            except NotTraceableError as error:
                made.model = copy.deepcopy(self._model)  # the other may hold hooks, and thawed parameters
                made.kept = [KeptUnits(site, units, str(error)) for site, units in chosen.items()]
                return
        plan, layers = Plan(), {}
        for site, units in chosen.items():
            try:
                layer = wiring.feeding_layer(site)
                left = set(units)
                if self._certified_for is not None:
                    left &= wiring.certified(site, self._certified_for, self._ranges)
                reasons = dict.fromkeys(set(units) - left, "dead on these examples, perhaps not for any input")
                reasons |= wiring.plan(plan, layer, left, self._ranges) if left else {}
            except NotTraceableError as error:
                reasons = dict.fromkeys(units, str(error))
            else:
                layers[site] = layer
            made.kept += _by_reason(site, reasons)
            made.removed[site] = [unit for unit in units if unit not in reasons]
        last = wiring.remove(plan)
        wiring.restore()
        for site, layer in layers.items():
            if (unit := last.get(layer)) in made.removed[site]:
                made.removed[site].remove(unit)
                made.kept.append(KeptUnits(site, [unit], "the last unit of its layer"))
        made.removed = {site: units for site, units in made.removed.items() if units}

    def _compare(self, made: _Attempt, device: torch.device | None) -> None:
        """Note the largest change of an output, and where one is beyond the tolerance."""
        largest, change = _Largest(), _Largest()
        for batch in self._batches:
            batch = to_device(batch, device)
            before, after = (tensors_of(self._forward(model, batch)) for model in (self._model, made.model))
            if not before:
                raise UserError(
                    "The model returns no tensor, so nothing can be compared. Give `forward` one that does."
                )
            if [x.shape for x in before] != [x.shape for x in after]:
                raise RuntimeError("its outputs have other shapes")
            for number, (old, new) in enumerate(zip(before, after, strict=True)):
                largest.see(number, old)
                change.see(number, new.to(torch.float64) - old.to(torch.float64))
        beyond = {n: value for n, value in change.items() if not value <= self._tolerance * largest[n]}
        made.change, made.largest = max(change.values(), default=0.0), max(largest.values(), default=0.0)
        if beyond:
            made.problem = f"without these units an output changes by {max(beyond.values()):.1e} on these examples"


class _Largest(dict[int, float]):
    """The largest absolute value seen, by the output's number; NaN once one was seen."""

    def see(self, number: int, values: Any) -> None:  # noqa: ANN401
        if values.numel():
            self[number] = float(torch.maximum(values.abs().max().double(), torch.tensor(self.get(number, 0.0))))


def _by_reason(site: str, reasons: Mapping[int, str]) -> list[KeptUnits]:
    return [
        KeptUnits(site, sorted(unit for unit in reasons if reasons[unit] == reason), reason)
        for reason in dict.fromkeys(reasons.values())
    ]


def _elements(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _numbers(units: list[int], most: int = 8) -> str:
    return ", ".join(map(str, units[:most])) + (f" and {len(units) - most} more" if len(units) > most else "")
