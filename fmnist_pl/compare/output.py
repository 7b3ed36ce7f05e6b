"""Prints a comparison, and writes it as Markdown, CSV, JSON and TensorBoard records."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from fmnist_pl.compare.markdown import markdown, notes, sentences
from fmnist_pl.compare.results import Comparison
from fmnist_pl.compare.run_metrics import BY_KEY
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
    """Write event files in place of an earlier comparison's: ``text``, and each variant as a session of HParams."""
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
