"""The comparison in TensorBoard: its text, and per variant the final means for the HParams dashboard."""

import time
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from fmnist_pl.compare.comparison import Comparison, VariantResult
from fmnist_pl.compare.figures import FIGURES


def write_tensorboard(comparison: Comparison, text: str, folder: Path) -> None:
    """Write event files into ``folder``, in place of those of an earlier comparison.

    Args:
        comparison: Its variants become one HParams session each: ``mean/<figure>`` and ``sd/<figure>``.
        text: Markdown for the text dashboard.
        folder: The comparison's own.
    """
    for old in folder.glob("**/events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("comparison", text)
    for variant in comparison.variants:
        if variant.complete:
            _write_variant(variant, folder / "variants" / variant.name)


def _write_variant(variant: VariantResult, folder: Path) -> None:
    values: dict[str, float] = {}
    for figure in FIGURES:
        spread = variant.spreads[figure.key]
        if spread is not None:
            values[f"mean/{figure.key}"] = spread.mean
            if spread.sd is not None:
                values[f"sd/{figure.key}"] = spread.sd
    first = variant.complete[0].summary
    settings = {"variant": variant.name, "dataset": first["dataset"], "seeds": len(variant.complete)}
    with SummaryWriter(str(folder)) as writer:
        for key, value in values.items():
            writer.add_scalar(key, value, 0)
        for record in hparams(settings, dict.fromkeys(values, 0.0)):
            writer._get_file_writer().add_summary(record, walltime=time.time())
