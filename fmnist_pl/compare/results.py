"""The result: every run's metrics, each variant's spread over seeds, and its differences paired by seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from scipy import stats

from fmnist_pl.compare.log_folder import RunResult
from fmnist_pl.compare.run_metrics import METRICS, PRINTED, PRINTED_EPOCHS

METHOD = "paired t interval, 95 %"
_ROUNDING = 1e-12  # a difference of this size between the same numbers is arithmetic


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (n - 1) of one metric over seeds; no deviation from fewer than two."""

    n: int
    mean: float
    sd: float | None


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of at least one value.

    >>> spread([1.0, 2.0, 3.0])
    Spread(n=3, mean=2.0, sd=1.0)
    """
    return Spread(len(values), fmean(values), stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Difference:
    """A variant's metric minus the reference's, over the seeds that both have."""

    n: int  # pairs
    mean: float
    half_width: float | None  # of the 95 % interval around the mean; None from fewer than two pairs

    @property
    def verdict(self) -> Literal["different", "noise", "unknown"]:
        """Whether the interval leaves zero out. Of equal variants 5 % are called different, by chance."""
        if self.half_width is None:
            return "unknown"
        return "different" if abs(self.mean) > self.half_width + _ROUNDING else "noise"


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Compare two sequences of the same metric, pair by pair.

    Pairing by seed takes out what the seed does to both: the order of the images, and where the networks have the same
    shape the initial weights. The interval supposes differences that scatter normally.

    >>> paired_difference([0.92, 0.94, 0.93], [0.91, 0.91, 0.91]).verdict
    'noise'
    """
    found = spread([ours - theirs for ours, theirs in zip(values, reference, strict=True)])
    width = None if found.sd is None else float(stats.t.ppf(0.975, found.n - 1)) * found.sd / found.n**0.5
    return Difference(found.n, found.mean, width)


@dataclass(frozen=True)
class VariantResult:
    """One row of the table."""

    name: str
    runs: tuple[RunResult, ...]  # all that were wanted
    spreads: Mapping[str, Spread | None]  # by metric, over the complete runs; None where they did not measure it
    printed: Mapping[str, float]  # by metric, in the variant's notebook; empty if the runs did not do what it did

    @property
    def complete(self) -> tuple[RunResult, ...]:
        """Those that did not fail."""
        return tuple(run for run in self.runs if run.failure is None)


@dataclass(frozen=True)
class Comparison:
    """All variants, and how each differs from the reference."""

    variants: tuple[VariantResult, ...]  # in the order they were asked for
    reference: str  # name of the one that the others are compared to
    differences: Mapping[str, Mapping[str, Difference | None]]  # by other variant and metric; None: no seed has both
    data: Mapping[str, Any]  # of all runs; see `fmnist_pl.runs.identity`
    options: Sequence[str] = ()  # further ones of ``fmnist fit``, for all runs

    @property
    def runs(self) -> list[RunResult]:
        """All of them, failed ones included."""
        return [run for variant in self.variants for run in variant.runs]


def compare(
    results: Sequence[RunResult], reference: str, data: Mapping[str, Any], options: Sequence[str] = ()
) -> Comparison:
    """Put the results of all wanted runs together, which were all trained on the same data."""
    variants = {
        name: _variant(name, tuple(run for run in results if run.variant == name), data)
        for name in dict.fromkeys(result.variant for result in results)
    }
    others = {name: variant for name, variant in variants.items() if name != reference}
    differences = {
        name: {metric.key: _difference(variant, variants[reference], metric.key) for metric in METRICS}
        for name, variant in others.items()
    }
    return Comparison(tuple(variants.values()), reference, differences, data, tuple(options))


def _variant(name: str, runs: tuple[RunResult, ...], data: Mapping[str, Any]) -> VariantResult:
    complete = [run for run in runs if run.failure is None]
    values = {metric.key: [run.metrics[metric.key] for run in complete] for metric in METRICS}
    # A mean over some of the runs would look like one over all.
    spreads = {key: None if None in found or not found else spread(found) for key, found in values.items()}  # type: ignore[arg-type]
    as_printed = data["dataset"] == "fashion_mnist" and data["training_images"] is None
    as_printed = as_printed and complete != [] and all(run.summary.get("epochs") == PRINTED_EPOCHS for run in complete)
    return VariantResult(name, runs, spreads, PRINTED.get(name, {}) if as_printed else {})


def _difference(variant: VariantResult, reference: VariantResult, key: str) -> Difference | None:
    ours, theirs = ({run.seed: run.metrics[key] for run in side.complete} for side in (variant, reference))
    pairs = [(ours[seed], theirs[seed]) for seed in ours if None not in (ours[seed], theirs.get(seed))]
    return paired_difference(*zip(*pairs, strict=True)) if pairs else None
