"""Prints a comparison, and writes it as Markdown, CSV, JSON and TensorBoard records."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from fmnist_pl.compare.markdown import markdown, sentences
from fmnist_pl.compare.notes import notes
from fmnist_pl.compare.results import Comparison
from fmnist_pl.compare.statistics import METHOD, Difference
from training_health.durable_file import replace_durably
from training_health.errors import UserError


def write_all(comparison: Comparison, folder: Path) -> None:
    """Print the Markdown, then write it with CSV, JSON and TensorBoard records into ``folder``.

    Raises:
        UserError: If the folder cannot be written; what was printed stands.
    """
    text = markdown(comparison)
    print(text)
    try:
        replace_durably(folder / "compare.md", text.encode())
        replace_durably(folder / "compare.csv", csv_text(comparison).encode())
        replace_durably(folder / "compare.json", json_text(comparison).encode())
        write_tensorboard(comparison, text, folder)
    except OSError as error:
        raise UserError(
            f"The results cannot be written into {folder}: {error.strerror or error}. They are printed above; make "
            "room or choose another folder with --output, and repeat the command: finished runs are not repeated."
        ) from error
    print(f"Written: {folder / 'compare.md'}, .csv, .json, and TensorBoard records beside them")


def csv_text(comparison: Comparison) -> str:
    """One row per variant and metric: fractions and seconds, nothing rounded; empty where there is no value."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    head = "variant,metric,n,failed,mean,sd,notebook,pairs,difference,half_width,verdict"
    writer.writerow(head.split(","))
    for variant in comparison.variants:
        failed = len(variant.runs) - len(variant.complete)
        for key, spread in variant.spreads.items():
            difference = comparison.differences.get(variant.name, {}).get(key)
            row: list[Any] = [variant.name, key, len(variant.complete), failed]
            row += (spread.mean, spread.sd) if spread else (None, None)
            row.append(variant.printed.get(key))
            row += (*vars(difference).values(), difference.verdict) if difference else [None] * 4
            writer.writerow(row)
    return output.getvalue()


def json_text(comparison: Comparison) -> str:
    """Everything, down to each run's summary: fractions and seconds, nothing rounded."""
    words = {"interval": METHOD, "sentences": sentences(comparison), "notes": notes(comparison)}
    value = {"format": 2, **vars(comparison), **words}
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"


def write_tensorboard(comparison: Comparison, text: str, folder: Path) -> None:
    """Write event files into ``folder``, in place of those of an earlier comparison.

    The text dashboard shows ``text``; each variant is a session of HParams, with ``mean/<metric>`` and ``sd/<metric>``.
    """
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


def _plain(value: Any) -> dict[str, Any]:  # noqa: ANN401
    """The attributes of one of this package's dataclasses."""
    return {**vars(value), "verdict": value.verdict} if isinstance(value, Difference) else vars(value)
