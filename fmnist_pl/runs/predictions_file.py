"""``predictions.csv``: what ``fmnist predict`` leaves, one line per test image."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor
from typing_extensions import override

from fmnist_pl.data import CLASS_NAMES
from training_health.durable_file import replace_durably
from training_health.errors import UserError
from training_health.lightning import every_rank

FILE_NAME = "predictions.csv"
COLUMNS = ("image", "label", "predicted", "probability")


class PredictionsFile(pl.Callback):
    """Write the predictions of all ranks into the evaluation's folder, and print where, with the accuracy.

    The columns are the image's index in the test set, the names of its true and its predicted class, and the
    predicted class's probability. The folder is ``trainer.log_dir``, without a logger the current one. Under
    ``fast_dev_run`` nothing is written or printed.

    Collected batch by batch, since Lightning keeps predictions only where a strategy can return them. Costs three
    numbers per image and one transfer per batch.
    """

    def __init__(self) -> None:
        self._label: list[Tensor] = []  # per batch (N,)
        self._predicted: list[Tensor] = []  # per batch (N,)
        self._probability: list[Tensor] = []  # per batch (N,)

    @override
    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for part in (self._label, self._predicted, self._probability):
            part.clear()

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
        self._label.append(outputs["labels"].cpu())
        self._predicted.append(outputs["predicted"].cpu())
        self._probability.append(outputs["probabilities"].amax(dim=1).float().cpu())

    @override
    def on_predict_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather, write and print; every rank must come here.

        Raises:
            UserError: The file cannot be written.
        """
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        parts = (self._label, self._predicted, self._probability)
        mine = [torch.cat(part) if part else torch.empty(0) for part in parts]
        ranks = every_rank(trainer, mine)
        folder = Path(trainer.log_dir or ".")  # every rank must ask
        if not trainer.is_global_zero:
            return
        image, label, predicted, probability = in_image_order(ranks)
        path = folder / FILE_NAME
        try:
            replace_durably(path, as_csv(image, label, predicted, probability).encode())
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}.") from error
        correct = sum(true == guess for true, guess in zip(label, predicted, strict=True))
        print(f"Accuracy {correct / max(len(image), 1):.4f} on {len(image):,} images. Each prediction: {path}")


def in_image_order(ranks: Sequence[Sequence[Tensor]]) -> tuple[list[int], list[int], list[int], list[float]]:
    """Merge the ranks' shares of the images as `BatchLoader` deals them out: rank, rank + ranks, rank + 2 ranks, ...

    Args:
        ranks: Per rank labels, predicted classes and probabilities, each (its images,).

    Returns:
        Image indices, labels, predicted classes and probabilities, in the order of the images.
    """
    rows = [
        (rank + len(ranks) * position, int(label), int(predicted), float(probability))
        for rank, parts in enumerate(ranks)
        for position, (label, predicted, probability) in enumerate(zip(*(p.tolist() for p in parts), strict=True))
    ]
    rows.sort()
    return [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], [r[3] for r in rows]


def as_csv(image: list[int], label: list[int], predicted: list[int], probability: list[float]) -> str:
    """The file's text, classes by name, probabilities with six decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in zip(image, label, predicted, probability, strict=True):
        writer.writerow([row[0], CLASS_NAMES[row[1]], CLASS_NAMES[row[2]], f"{row[3]:.6f}"])
    return text.getvalue()
