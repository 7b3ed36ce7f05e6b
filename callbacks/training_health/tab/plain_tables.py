"""The runs and their findings as HTML that needs no script."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

_RUNS = ("run", "verdict", "epochs", "dead units", "gap", "validation accuracy", "test accuracy")
_FINDINGS = ("run", "severity", "finding", "evidence", "rule", "what to try")


def plain_tables(rows: Iterable[Mapping[str, Any]]) -> str:
    """Two tables, one row per run and one per finding, from the rows of the overview."""
    rows = list(rows)
    told = ("severity", "title", "evidence", "threshold")
    findings = [
        (row["run"], *(found[key] for key in told), "; ".join(found["advice"]))
        for row in rows
        for found in row["findings"]
    ]
    none = "" if findings else "<p>Every rule was checked and none fired.</p>"
    return f"<h2>Runs</h2>{_table(_RUNS, map(_run, rows))}<h2>Findings</h2>{none}{_table(_FINDINGS, findings)}"


def _run(row: Mapping[str, Any]) -> tuple[str, ...]:
    n = "n unknown" if row["n"] is None else f"n = {row['n']:,}"
    dead = "" if row["dead_fraction"] is None else f"{row['dead_fraction']:.1%} ({row['dead']} of {row['units']}, {n})"
    gap = "" if row["gap"] is None else f"{round(100 * row['gap'], 1) + 0.0:+.1f} points"  # no -0.0
    if gap and row["gap_margin"] is not None:
        gap += f" ± {100 * row['gap_margin']:.1f} (95 %)"
    accuracies = ("" if row[key] is None else f"{row[key]:.2%}" for key in ("val_accuracy", "test_accuracy"))
    epochs = "" if row["epochs"] is None else str(row["epochs"])
    return row["run"], row["verdict"]["words"] or row["message"] or "no records", epochs, dead, gap, *accuracies


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
