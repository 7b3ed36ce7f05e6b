"""The result: every run's figures, each variant's spread, each variant's difference to the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmnist_pl.compare.figures import FIGURES, figures_of
from fmnist_pl.compare.finished import FinishedRun
from fmnist_pl.compare.notebooks import EPOCHS, PRINTED
from fmnist_pl.compare.sentences import verdict_sentence
from fmnist_pl.compare.statistics import Difference, Spread, paired_difference, spread
from fmnist_pl.compare.wanted_run import WantedRun
from training_health.errors import UserError


@dataclass(frozen=True)
class RunResult:
    """One wanted run: its figures, or why it has none.

    Attributes:
        variant: Name.
        seed: Of the run.
        failure: Why it has no figures; None if it has.
        figures: By key; None where the run did not measure it.
        summary: The run's own; empty if there is none.
        folder: Of the run; None likewise.
    """

    variant: str
    seed: int
    failure: str | None
    figures: Mapping[str, float | None]
    summary: Mapping[str, Any]
    folder: str | None


@dataclass(frozen=True)
class VariantResult:
    """One row of the table.

    Attributes:
        name: Of the variant.
        runs: All that were wanted.
        spreads: By figure, over the runs that did not fail; None where they did not measure it.
        printed: By figure, what the variant's notebook printed; empty if the runs did not do what it did.
    """

    name: str
    runs: tuple[RunResult, ...]
    spreads: Mapping[str, Spread | None]
    printed: Mapping[str, float]

    @property
    def complete(self) -> tuple[RunResult, ...]:
        """Those that did not fail."""
        return tuple(run for run in self.runs if run.failure is None)


@dataclass(frozen=True)
class Comparison:
    """All variants, and how each differs from the reference.

    Attributes:
        variants: In the order they were asked for.
        reference: Name of the one that the others are compared to.
        differences: By variant and figure; None where no seed has both.
        sentences: One per variant other than the reference.
        data: Of all runs; see `fmnist_pl.runs.identity.data_identity`.
        seeds: Asked for.
    """

    variants: tuple[VariantResult, ...]
    reference: str
    differences: Mapping[str, Mapping[str, Difference | None]]
    sentences: tuple[str, ...]
    data: Mapping[str, Any]
    seeds: tuple[int, ...]

    @property
    def runs(self) -> list[RunResult]:
        """All of them, failed ones included."""
        return [run for variant in self.variants for run in variant.runs]


def run_result(run: WantedRun, finished: FinishedRun | None, failure: str | None) -> RunResult:
    """The result of a wanted run from what it left, or from the reason why it left nothing."""
    if finished is None:
        return RunResult(run.name, run.seed, failure or "not trained", {}, {}, None)
    if finished.identity["data"] != run.identity["data"]:
        raise UserError(f"{finished.folder} was trained on other data than {run}; one table cannot hold both.")
    figures = figures_of(finished.summary)
    return RunResult(run.name, run.seed, finished.failure, figures, finished.summary, str(finished.folder))


def compare(results: Sequence[RunResult], reference: str, data: Mapping[str, Any]) -> Comparison:
    """Put the results together.

    Args:
        results: Of all wanted runs.
        reference: Name of a variant among them.
        data: What all of them were trained on.
    """
    names = list(dict.fromkeys(result.variant for result in results))
    variants = {name: _variant(name, [run for run in results if run.variant == name], data) for name in names}
    others = [name for name in names if name != reference]
    differences = {name: _differences(variants[name], variants[reference]) for name in others}
    sentences = [
        verdict_sentence(name, reference, differences[name], variants[name].spreads, variants[reference].spreads)
        for name in others
    ]
    seeds = tuple(dict.fromkeys(result.seed for result in results))
    return Comparison(tuple(variants.values()), reference, differences, tuple(sentences), data, seeds)


def _variant(name: str, runs: Sequence[RunResult], data: Mapping[str, Any]) -> VariantResult:
    complete = [run for run in runs if run.failure is None]
    spreads = {figure.key: _spread([run.figures[figure.key] for run in complete]) for figure in FIGURES}
    as_printed = data["dataset"] == "fashion_mnist" and data["training_images"] is None
    as_printed = as_printed and all(run.summary.get("epochs") == EPOCHS for run in complete)
    return VariantResult(name, tuple(runs), spreads, PRINTED.get(name, {}) if as_printed else {})


def _spread(values: Sequence[float | None]) -> Spread | None:
    """None unless every run has the figure: a mean over some of the runs would look like one over all."""
    known = [value for value in values if value is not None]
    return spread(known) if known and len(known) == len(values) else None


def _differences(variant: VariantResult, reference: VariantResult) -> dict[str, Difference | None]:
    by_seed = {run.seed: run.figures for run in reference.complete}
    pairs = [(run.figures, by_seed[run.seed]) for run in variant.complete if run.seed in by_seed]
    result: dict[str, Difference | None] = {}
    for figure in FIGURES:
        known = [
            (mine, its)
            for mine, its in ((mine.get(figure.key), its.get(figure.key)) for mine, its in pairs)
            if mine is not None and its is not None
        ]
        result[figure.key] = paired_difference(*zip(*known, strict=True)) if known else None
    return result
