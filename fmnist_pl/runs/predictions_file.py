"""``predictions.csv``: what ``fmnist predict`` leaves, one line per test image."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from typing_extensions import override

from fmnist_pl.dataset.files import CLASS_NAMES
from fmnist_pl.process import printable
from fmnist_pl.runs.folder import write_file
from training_health.lightning import every_rank

PREDICTIONS_FILE = "predictions.csv"


class PredictionsFile(pl.Callback):
    """Write the predictions of all ranks into the evaluation's folder, and print where, with the accuracy.

    The columns are the image's index in the test set, the names of its true and its predicted class, and the
    predicted class's probability. The folder is ``trainer.log_dir``, without a logger the current one. Under
    ``fast_dev_run`` nothing is written or printed.

    Collected batch by batch, since Lightning keeps predictions only where a strategy can return them. Costs three
    numbers per image and one transfer per batch.
    """

    def __init__(self) -> None:
        self._batches: list[Tensor] = []  # (N, 3): label, predicted class, its probability

    @override
    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._batches.clear()

    @override
    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Mapping[str, Tensor],
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what ``predict_step`` returned: ``labels`` and ``predicted`` (N,), ``probabilities`` (N, classes)."""
        parts = outputs["labels"], outputs["predicted"], outputs["probabilities"].amax(dim=1)
        self._batches.append(torch.stack([part.float() for part in parts], dim=1).cpu())

    @override
    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather, write and print; every rank must come here."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        ranks = every_rank(trainer, torch.cat([torch.empty(0, 3), *self._batches]))
        path = Path(trainer.log_dir or ".") / PREDICTIONS_FILE  # every rank must ask
        if trainer.is_global_zero:
            rows, text = in_image_order(ranks), io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(("image", "label", "predicted", "probability"))
            for image, label, predicted, probability in rows:
                writer.writerow((image, CLASS_NAMES[label], CLASS_NAMES[predicted], f"{probability:.6f}"))
            write_file(path, text.getvalue())
            correct = sum(label == predicted for _, label, predicted, _ in rows)
            accuracy = f"Accuracy {correct / max(len(rows), 1):.4f} on {len(rows):,} images."
            print(f"{accuracy} Each prediction: {printable(path)}")


def in_image_order(ranks: Sequence[Tensor]) -> list[tuple[int, int, int, float]]:
    """Merge what the ranks have, each (its images, 3), into rows (image, label, predicted class, probability).

    `BatchLoader` gives a rank the images rank, rank + ranks, rank + 2 ranks, ...
    """
    return sorted(
        (rank + len(ranks) * position, int(label), int(predicted), probability)
        for rank, rows in enumerate(ranks)
        for position, (label, predicted, probability) in enumerate(rows.tolist())
    )
