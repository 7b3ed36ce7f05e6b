"""The comparison as Markdown, for a person."""

from collections.abc import Sequence

from fmnist_pl.compare.comparison import Comparison, VariantResult
from fmnist_pl.compare.figures import BY_KEY, FIGURES, Figure
from fmnist_pl.compare.notebooks import REPRODUCED
from fmnist_pl.compare.notes import notes
from fmnist_pl.compare.statistics import Difference

_ABSENT = "-"


def markdown(comparison: Comparison) -> str:
    """The whole comparison for a person: results, differences, verdicts, the notebooks, failures, notes."""
    sections = [f"# {', '.join(f'`{variant.name}`' for variant in comparison.variants)} compared"]
    sections.append(results_table(comparison))
    if comparison.sentences:
        sections += [f"## Differences to `{comparison.reference}`", "\n".join(f"- {s}" for s in comparison.sentences)]
        sections.append(differences_table(comparison))
    if rows := notebook_rows(comparison):
        sections += ["## Beside the notebooks", table(rows)]
    if failures := [run for run in comparison.runs if run.failure is not None]:
        lines = [f"- `{run.variant}` seed {run.seed}: {run.failure}" for run in failures]
        sections += ["## Failed runs, left out above", "\n".join(lines)]
    sections += ["## How this was measured", "\n".join(f"- {note}" for note in notes(comparison))]
    return "\n\n".join(sections) + "\n"


def results_table(comparison: Comparison) -> str:
    """One row per variant: n and each figure's mean ± sd, with the notebook's printed figure in brackets."""
    head = ["variant", "n", *(figure.heading for figure in FIGURES)]
    rows = [
        [f"`{variant.name}`", _count(variant), *(_cell(figure, variant) for figure in FIGURES)]
        for variant in comparison.variants
    ]
    return table([head, *rows])


def differences_table(comparison: Comparison) -> str:
    """One row per variant: each figure's paired difference ± half of its interval, bold where beyond noise."""
    head = ["variant", *(figure.heading.replace(" %", ", points") for figure in FIGURES)]
    rows = [
        [f"`{name}`", *(_difference_cell(figure, differences[figure.key]) for figure in FIGURES)]
        for name, differences in comparison.differences.items()
    ]
    return table([head, *rows])


def notebook_rows(comparison: Comparison) -> list[list[str]]:
    """A header and one row per figure that a notebook printed; empty without any."""
    rows = []
    for variant in comparison.variants:
        for key in REPRODUCED:
            spread, printed, figure = variant.spreads[key], variant.printed.get(key), BY_KEY[key]
            if spread is None or printed is None:
                continue
            distance = _ABSENT if not spread.sd else f"{(printed - spread.mean) / spread.sd:+.1f} sd"
            rows.append([f"`{variant.name}`", figure.heading, _cell(figure, variant), figure.shown(printed), distance])
    head = ["variant", "figure", "here", "notebook", "notebook lies at"]
    return [head, *rows] if rows else []


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


def _count(variant: VariantResult) -> str:
    failed = len(variant.runs) - len(variant.complete)
    return f"{len(variant.complete)}" + (f" ({failed} failed)" if failed else "")


def _cell(figure: Figure, variant: VariantResult) -> str:
    spread, printed = variant.spreads[figure.key], variant.printed.get(figure.key)
    if spread is None:
        text = _ABSENT
    elif spread.sd is None:
        text = figure.shown(spread.mean)
    else:
        text = f"{figure.shown(spread.mean)} ± {figure.shown(spread.sd)}"
    return text if printed is None else f"{text} ({figure.shown(printed)})"


def _difference_cell(figure: Figure, difference: Difference | None) -> str:
    if difference is None:
        return _ABSENT
    mean = figure.shown(difference.mean, sign=True)
    if difference.half_width is None:
        return mean
    text = f"{mean} ± {figure.shown(difference.half_width)}"
    return f"**{text}**" if difference.verdict == "different" else text
