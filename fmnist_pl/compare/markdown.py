"""The comparison as Markdown, for a person."""

from collections.abc import Sequence

from fmnist_pl.compare.notes import notes
from fmnist_pl.compare.results import Comparison
from fmnist_pl.compare.run_metrics import BY_KEY, METRICS, Metric
from fmnist_pl.compare.statistics import Difference, Spread

_ABSENT = "-"
_REPRODUCED = (
    "running_accuracy",
    "val_accuracy",
    "apparent_gap",
    "test_accuracy",
)  # what the notebooks should agree on
_TOLD = {"gap": "the gap", "test_accuracy": "test accuracy", "dead_fraction": "the fraction of dead units"}


def markdown(comparison: Comparison) -> str:
    """The whole comparison for a person: results, differences, verdicts, the notebooks, failures, notes."""
    headings = [metric.heading for metric in METRICS]
    results, notebooks = [["variant", "n", *headings]], [["variant", "metric", "here", "notebook", "notebook lies at"]]
    for variant in comparison.variants:
        name, failed = f"`{variant.name}`", len(variant.runs) - len(variant.complete)
        count = f"{len(variant.complete)}" + (f" ({failed} failed)" if failed else "")
        results.append([name, count, *(spread_cell(metric, variant.spreads[metric.key]) for metric in METRICS)])
        for metric in (BY_KEY[key] for key in _REPRODUCED if key in variant.printed):
            spread, printed = variant.spreads[metric.key], variant.printed[metric.key]
            distance = f"{(printed - spread.mean) / spread.sd:+.1f} sd" if spread and spread.sd else _ABSENT
            notebooks.append([name, metric.heading, spread_cell(metric, spread), metric.shown(printed), distance])
    sections = [f"# {', '.join(f'`{variant.name}`' for variant in comparison.variants)} compared", table(results)]
    if comparison.differences:
        rows = [["variant", *(heading.replace(" %", ", points") for heading in headings)]]
        for name, differences in comparison.differences.items():
            rows.append([f"`{name}`", *(difference_cell(metric, differences[metric.key]) for metric in METRICS)])
        sections += [f"## Differences to `{comparison.reference}`", _bullets(sentences(comparison)), table(rows)]
    if len(notebooks) > 1:
        sections += ["## Beside the notebooks", table(notebooks)]
    if failures := [run for run in comparison.runs if run.failure is not None]:
        listed = _bullets([f"`{run.variant}` seed {run.seed}: {run.failure}" for run in failures])
        sections += ["## Failed runs, left out above", listed]
    return "\n\n".join([*sections, "## How this was measured", _bullets(notes(comparison))]) + "\n"


def sentences(comparison: Comparison) -> list[str]:
    """How each variant differs from the reference, in words; what lies within noise is called that."""
    result = []
    for name, differences in comparison.differences.items():
        told = {words: (BY_KEY[key], found) for key, words in _TOLD.items() if (found := differences[key]) is not None}
        pairs = max((difference.n for _, difference in told.values()), default=0)
        clauses = "; ".join(_clause(words, *about) for words, about in told.items())
        nothing = "no seed has finished runs of both"
        result.append(f"`{name}` against `{comparison.reference}`, seeds in common: {pairs}: {clauses or nothing}.")
    return result


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head.

    >>> print(table([["variant", "n"], ["sgd", "5"]]))
    | variant | n |
    | --- | --- |
    | sgd | 5 |
    """
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


def spread_cell(metric: Metric, spread: Spread | None) -> str:
    """Mean ± standard deviation, or what of it is known."""
    if spread is None:
        return _ABSENT
    return metric.shown(spread.mean) + (f" ± {metric.shown(spread.sd)}" if spread.sd is not None else "")


def difference_cell(metric: Metric, difference: Difference | None) -> str:
    """Mean ± half of the interval, bold if beyond noise."""
    if difference is None:
        return _ABSENT
    mean = metric.shown(difference.mean, sign=True)
    text = mean if difference.half_width is None else f"{mean} ± {metric.shown(difference.half_width)}"
    return f"**{text}**" if difference.verdict == "different" else text


def _clause(words: str, metric: Metric, difference: Difference) -> str:
    size = difference_cell(metric, difference).strip("*") + " points"
    return {
        "different": f"{words} changes by {size}",
        "noise": f"{words} does not differ beyond noise ({size})",
        "unknown": f"{words} differs by {size}, with no second seed to judge it",
    }[difference.verdict]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
