"""Prints a comparison (what came out, and what to know before believing it); writes it as Markdown, and its data.

A terminal gets tables of its width, a pipe the Markdown.
"""

import csv
import io
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from fmnist_pl.compare.results import METHOD, Comparison, Difference, Spread, VariantResult
from fmnist_pl.compare.run_metrics import BY_KEY, METRICS, Metric
from training_health.durable_file import replace_durably
from training_health.errors import UserError

_ABSENT = "-"
_LABELS, _CELL = 30, 20  # columns of a terminal that a metric's name and a variant take
_REPRODUCED = ("running_accuracy", "val_accuracy", "apparent_gap", "test_accuracy")  # what notebooks should agree on
_TOLD = {"gap": "the gap", "test_accuracy": "test accuracy", "dead_fraction": "the fraction of dead units"}
_TESTED = {"best": "the lowest validation loss", "last": "the last epoch", "none": "no epoch"}

# What should be the same for all runs, each with its way to read it from a run's summary.
_SETTINGS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "number of epochs": lambda summary: summary.get("epochs"),
    "weights that were tested": lambda summary: "those of " + _TESTED[summary.get("test_checkpoint", "best")],
    "device": lambda summary: f"{summary.get('device')}, threads: {summary.get('threads')}",
    "versions": lambda summary: ", ".join(f"{name} {v}" for name, v in summary.get("versions", {}).items()),
    "code of this package": lambda summary: (summary.get("identity") or {}).get("code"),
}


def write_all(comparison: Comparison, folder: Path, as_markdown: bool = False) -> None:
    """Print the comparison, then write it with CSV, JSON and TensorBoard records into ``folder``.

    Args:
        comparison: The result.
        folder: Made if need be.
        as_markdown: Whether a terminal is to get Markdown too, as anything else does.

    Raises:
        UserError: If the folder cannot be written; what was printed stands.
    """
    text = markdown(comparison)
    if as_markdown or not sys.stdout.isatty():
        print(text)
    else:
        print_tables(comparison, Console(highlight=False, markup=False, emoji=False))
    try:
        replace_durably(folder / "compare.md", text.encode())
        replace_durably(folder / "compare.csv", _csv(comparison).encode())
        replace_durably(folder / "compare.json", _json(comparison).encode())
        _write_tensorboard(comparison, text, folder)
    except OSError as error:
        raise UserError(
            f"The results cannot be written into {folder}: {error.strerror or error}. They are printed above; make "
            "room or choose another folder with --output, and repeat the command: finished runs are not repeated."
        ) from error
    print(f"Written: {folder / 'compare.md'}, .csv, .json, and TensorBoard records beside them")


def _csv(comparison: Comparison) -> str:
    """One row per run: fractions and seconds, nothing rounded; empty where there is no value."""
    output = io.StringIO()
    writer = csv.DictWriter(output, ["variant", "seed", "failure", *BY_KEY], lineterminator="\n")
    writer.writeheader()
    for run in comparison.runs:
        writer.writerow({"variant": run.variant, "seed": run.seed, "failure": run.failure, **run.metrics})
    return output.getvalue()


def _json(comparison: Comparison) -> str:
    """Everything, down to each run's summary: fractions and seconds, nothing rounded."""

    def plain(value: Any) -> dict[str, Any]:  # noqa: ANN401 - of this package's dataclasses
        return {**vars(value), "verdict": value.verdict} if isinstance(value, Difference) else vars(value)

    words = {"interval": METHOD, "sentences": sentences(comparison), "notes": notes(comparison)}
    value = {"format": 2, **vars(comparison), **words}
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=plain) + "\n"


def _write_tensorboard(comparison: Comparison, text: str, folder: Path) -> None:
    """Write event files in place of an earlier comparison's: ``text``, and each variant as a session of HParams.

    They have a folder of their own: ``folder`` may be the user's, and hold the event files of runs.
    """
    folder = folder / "tensorboard"
    for old in folder.glob("**/events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("comparison", text)
        for variant in comparison.variants:
            known = {key: spread for key, spread in variant.spreads.items() if spread is not None}
            values = {f"mean/{key}": spread.mean for key, spread in known.items()}
            values |= {f"sd/{key}": spread.sd for key, spread in known.items() if spread.sd is not None}
            about = {"variant": variant.name, "dataset": comparison.data["dataset"], "seeds": len(variant.complete)}
            if values:
                writer.add_hparams(about, values, run_name=f"variants/{variant.name}")


def print_tables(comparison: Comparison, console: Console) -> None:
    """Print the comparison in the console's width: a row per metric, as many variants side by side as there is room."""
    together = max(1, (console.width - _LABELS) // _CELL)
    for first in range(0, len(comparison.variants), together):
        variants = comparison.variants[first : first + together]
        rows = [["", *(f"{variant.name}\nn = {_count(variant)}" for variant in variants)]]
        for metric in METRICS:
            cells = [spread_cell(metric, variant.spreads[metric.key]) for variant in variants]
            for i, variant in enumerate(variants):
                if found := comparison.differences.get(variant.name, {}).get(metric.key):
                    cell = difference_cell(metric, found)
                    cells[i] += f"\n({cell.strip('*')}){' *' if found.verdict == 'different' else ''}"
            rows.append([metric.heading, *cells])
        console.print(_table_of_width(rows))
    if comparison.differences:
        console.print(f"In brackets: the difference to {comparison.reference}; * beyond noise.\n")
        console.print(_bullets(sentences(comparison)).replace("`", ""), "\n")
    if len(notebooks := _notebooks(comparison)) > 1:
        console.print("Beside the notebooks", _table_of_width(notebooks))
    for run in comparison.runs:
        if run.failure is not None:
            console.print(f"Failed, left out above: {run.variant} seed {run.seed}: {run.failure}")
    console.print(_bullets(notes(comparison)).replace("`", ""))


def _table_of_width(rows: Sequence[Sequence[str]]) -> Table:
    """A table that breaks what is too wide; the first row is its head."""
    made = Table(*(name.replace("`", "") for name in rows[0]), box=box.SIMPLE_HEAD)
    for column in made.columns[1:]:
        column.overflow = "fold"
    for row in rows[1:]:
        made.add_row(*(cell.replace("`", "") for cell in row))
    return made


def _count(variant: VariantResult) -> str:
    failed = len(variant.runs) - len(variant.complete)
    return f"{len(variant.complete)}" + (f" ({failed} failed)" if failed else "")


def _notebooks(comparison: Comparison) -> list[list[str]]:
    """What the notebooks printed beside what came out, as the rows of a table."""
    rows = [["variant", "metric", "here", "notebook", "notebook lies at"]]
    for variant in comparison.variants:
        for metric in (BY_KEY[key] for key in _REPRODUCED if key in variant.printed):
            spread, printed = variant.spreads[metric.key], variant.printed[metric.key]
            distance = f"{(printed - spread.mean) / spread.sd:+.1f} sd" if spread and spread.sd else _ABSENT
            cells = [spread_cell(metric, spread), metric.shown(printed), distance]
            rows.append([f"`{variant.name}`", metric.heading, *cells])
    return rows


def markdown(comparison: Comparison) -> str:
    """The whole comparison for a person: results, differences, verdicts, the notebooks, failures, notes."""
    headings = [metric.heading for metric in METRICS]
    results, notebooks = [["variant", "n", *headings]], _notebooks(comparison)
    for variant in comparison.variants:
        cells = [spread_cell(metric, variant.spreads[metric.key]) for metric in METRICS]
        results.append([f"`{variant.name}`", _count(variant), *cells])
    sections = [f"# {', '.join(f'`{variant.name}`' for variant in comparison.variants)} compared", table(results)]
    if comparison.differences:
        rows = [["variant", *(heading.replace(" %", ", points") for heading in headings)]]
        for name, found in comparison.differences.items():
            rows.append([f"`{name}`", *(difference_cell(metric, found[metric.key]) for metric in METRICS)])
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
        pairs, clauses = 0, []
        for key, words in _TOLD.items():
            if (difference := differences[key]) is not None:
                pairs = max(pairs, difference.n)
                size = difference_cell(BY_KEY[key], difference).strip("*") + " points"
                verdicts = {
                    "different": f"{words} changes by {size}",
                    "noise": f"{words} does not differ beyond noise ({size})",
                    "unknown": f"{words} differs by {size}, with no second seed to judge it",
                }
                clauses.append(verdicts[difference.verdict])
        text = "; ".join(clauses) or "no seed has finished runs of both"
        result.append(f"`{name}` against `{comparison.reference}`, seeds in common: {pairs}: {text}.")
    return result


def notes(comparison: Comparison) -> list[str]:
    """Sentences on the data, the method, and whatever differs between runs that should be the same."""
    data, complete = comparison.data, [run for run in comparison.runs if run.failure is None]
    name = "Fashion-MNIST" if data["dataset"] == "fashion_mnist" else "SYNTHETIC images, not Fashion-MNIST"
    images = "" if data["training_images"] is None else f", trained on only {data['training_images']:,} images"
    result = [f"Data: {name}{images}. Seeds: {', '.join(map(str, dict.fromkeys(r.seed for r in comparison.runs)))}."]
    shown = ("--trainer.max_epochs=", "--data.dataset=", "--data.training_images=")
    if passed_on := [option for option in comparison.options if not option.startswith(shown)]:
        result.append(f"Options of all runs, over those of their variants: `{shlex.join(passed_on)}`.")
    most = max(len(variant.complete) for variant in comparison.variants)
    if most == 0:
        result.append("No run has finished.")
    elif most == 1:
        result.append("Only one seed: no spread and no intervals. Nothing here tells a difference from chance.")
    else:
        result.append(
            "Metrics are mean ± standard deviation over seeds. Differences are paired by seed, variant minus "
            f"`{comparison.reference}`, mean ± half of the {METHOD}, each taken by itself: of twenty comparisons of "
            "equal variants about one would look like a difference."
        )
    result.append("Test accuracy is of the tested weights, all other metrics are of the last epoch.")
    if any("val/loss" not in history[-1] for run in complete if (history := run.summary.get("history"))):
        result.append(
            "Where the last epoch had no validation, metrics of validation and what the monitors measured are NOT of "
            "the last epoch, but of the last that was validated."
        )
    for setting, read in _SETTINGS.items():
        values = {run.variant: read(run.summary) for run in complete}
        distinct = list(dict.fromkeys(read(run.summary) for run in complete))
        if len(distinct) == 1:
            result.append(f"{setting.capitalize()}: {distinct[0]}.")
        elif len(distinct) > 1:
            listed = "; ".join(f"{variant}: {value}" for variant, value in values.items())
            result.append(f"NOT the same for all runs, {setting}: {listed}.")
    return result


def table(rows: Sequence[Sequence[str]]) -> str:
    r"""A Markdown table; the first row is its head.

    >>> print(table([["variant", "n"], ["a|b", "5"]]))
    | variant | n |
    | --- | --- |
    | a\|b | 5 |
    """
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


def spread_cell(metric: Metric, spread: Spread | None) -> str:
    """Mean ± standard deviation, or what of it is known."""
    if spread is None:
        return _ABSENT
    return metric.shown(spread.mean) + ("" if spread.sd is None else f" ± {metric.shown(spread.sd)}")


def difference_cell(metric: Metric, found: Difference | None) -> str:
    """Mean ± half of the interval, bold if beyond noise."""
    if found is None:
        return _ABSENT
    width = "" if found.half_width is None else f" ± {metric.shown(found.half_width)}"
    text = metric.shown(found.mean, sign=True) + width
    return f"**{text}**" if found.verdict == "different" else text


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
