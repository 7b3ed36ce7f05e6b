"""The comparison as CSV and JSON, for programs: fractions and seconds, nothing rounded."""

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from fmnist_pl.compare.comparison import Comparison, VariantResult
from fmnist_pl.compare.figures import FIGURES
from fmnist_pl.compare.notes import notes
from fmnist_pl.compare.statistics import METHOD


def csv_text(comparison: Comparison) -> str:
    """One row per variant: of each figure mean, sd, the notebook's, difference, half of its interval, verdict."""
    rows = [_csv_row(comparison, variant) for variant in comparison.variants]
    output = io.StringIO()
    writer = csv.DictWriter(output, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return output.getvalue()


def json_text(comparison: Comparison) -> str:
    """Everything, down to each run's figures, folder, threads and identity."""
    value = {
        "format": 1,
        "data": comparison.data,
        "seeds": comparison.seeds,
        "reference": comparison.reference,
        "interval": METHOD,
        "variants": [_json_variant(comparison, variant) for variant in comparison.variants],
        "sentences": comparison.sentences,
        "notes": notes(comparison),
    }
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _json_variant(comparison: Comparison, variant: VariantResult) -> dict[str, Any]:
    differences = comparison.differences.get(variant.name, {})
    kept = ("epochs", "max_epochs", "test_checkpoint", "device", "devices", "threads", "versions", "identity")
    return {
        "name": variant.name,
        "n": len(variant.complete),
        "figures": {key: spread and asdict(spread) for key, spread in variant.spreads.items()},
        "notebook": dict(variant.printed),
        "differences": {key: d and {**asdict(d), "verdict": d.verdict} for key, d in differences.items()},
        "runs": [
            {
                "seed": run.seed,
                "failure": run.failure,
                "folder": run.folder,
                "figures": dict(run.figures),
                **{key: run.summary[key] for key in kept if key in run.summary},
            }
            for run in variant.runs
        ],
    }


def _csv_row(comparison: Comparison, variant: VariantResult) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": variant.name, "n": len(variant.complete)}
    row["failed"] = len(variant.runs) - len(variant.complete)
    for figure in FIGURES:
        spread = variant.spreads[figure.key]
        difference = comparison.differences.get(variant.name, {}).get(figure.key)
        row[f"{figure.key}_mean"] = spread.mean if spread else None
        row[f"{figure.key}_sd"] = spread.sd if spread else None
        row[f"{figure.key}_notebook"] = variant.printed.get(figure.key)
        row[f"{figure.key}_difference"] = difference.mean if difference else None
        row[f"{figure.key}_half_width"] = difference.half_width if difference else None
        row[f"{figure.key}_verdict"] = difference.verdict if difference else None
    return row
