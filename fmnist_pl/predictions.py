"""What the tested network predicts, in pictures: a grid of images, the confusion matrix, accuracy per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix
from typing_extensions import override

from training_health.batches import ends_in_a_repeat, first_tensor
from training_health.lightning import every_rank, loader_at
from training_health.sinks import tensorboard_writers, write_records


class PredictionImages(Callback):
    """After ``trainer.test``, write to TensorBoard what the network took each class for.

    Logged once, at the global step; loggers other than TensorBoard's get nothing:

    | key | kind | content |
    | --- | --- | --- |
    | ``predictions`` | image | random test images titled "predicted (true)", green where right and red where wrong |
    | ``confusion_matrix`` | image | counts, true by predicted class, shaded by their fraction of the row |
    | ``per_class_accuracy`` | text | a table of class, number of images and accuracy |

    During a fit it also records each class's accuracy on the validation examples of every epoch, for the tab, where
    ``validation_step`` returns a mapping with ``correct`` (N,) and ``labels`` (N,).

    ``test_step`` must return a mapping with ``logits`` (N, classes) and ``labels`` (N,); the images are the batch's
    first tensor, (N, 1 or 3, H, W) in [0, 1]. Counts are exact over all processes; the pictures come from the first.
    The cost is one confusion matrix per test batch, two scatter-adds per validation batch, and about a second of
    rendering at the end.

    Args:
        class_names: Name of each class, in label order.
        rows: Number of rows of the grid.
        columns: Number of columns of the grid.
        seed: Seed of the choice of images, independent of the global generators.

    Raises:
        MisconfigurationException: Without class names, or for a grid without images.

    Example:
        >>> from fmnist_pl.classifier import FashionClassifier
        >>> from fmnist_pl.loader import BatchLoader
        >>> callback = PredictionImages([f"class {label}" for label in range(10)])
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, accelerator="cpu", enable_progress_bar=False)
        >>> loader = BatchLoader(torch.zeros(6, 28, 28, dtype=torch.uint8), torch.arange(6), batch_size=2)
        >>> _ = trainer.test(FashionClassifier(conv_channels=(2,)), loader, verbose=False)
        >>> [sum(row) for row in callback.confusion()]  # images of each true class
        [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    """

    def __init__(self, class_names: Sequence[str], rows: int = 3, columns: int = 5, seed: int = 0) -> None:
        if not class_names:
            raise MisconfigurationException("`PredictionImages` needs the class names, in label order.")
        if rows < 1 or columns < 1:
            raise MisconfigurationException(f"A grid of {rows} x {columns} has no images: use at least 1 x 1.")
        self.class_names, self.rows, self.columns, self.seed = list(class_names), rows, columns, seed
        self._by_class: Tensor | None = None  # (2, classes): validation examples that were right, and all
        self._start()

    def _start(self) -> None:
        self._counts: Tensor | None = None  # (classes, classes)
        self._generator = torch.Generator().manual_seed(self.seed)
        # The images with the smallest random keys so far, a uniform sample of a stream of unknown length:
        # keys (S,), images (S, C, H, W), predicted (S,), true (S,).
        self._sample: list[Tensor] = []

    def confusion(self) -> list[list[int]]:
        """Counts over this process's test images so far: row true, column predicted."""
        return [] if self._counts is None else self._counts.tolist()

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._by_class = None

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        counts = trainer.state.fn == "fit" and not trainer.sanity_checking
        if not counts or not isinstance(outputs, Mapping) or not {"correct", "labels"} <= set(outputs):
            return
        labels, correct = outputs["labels"].long(), outputs["correct"].long()
        keep = len(labels) - ends_in_a_repeat(loader_at(trainer.val_dataloaders, dataloader_idx), batch_idx)
        if self._by_class is None:
            self._by_class = torch.zeros(2, len(self.class_names), dtype=torch.int64, device=labels.device)
        for row, counted in zip(self._by_class, (correct, torch.ones_like(labels)), strict=True):
            row.scatter_add_(0, labels[:keep], counted[:keep])

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parts = every_rank(trainer, None if self._by_class is None else self._by_class.cpu())
        self._by_class = None
        if known := [part for part in parts if part is not None]:
            right, all_ = torch.stack(known).sum(0)
            values = [float(all_.sum()), *(right / all_).tolist()]  # 0 / 0: NaN, which is unknown
            write_records(trainer, [("class_accuracy", "class_accuracy", values, {"classes": self.class_names})])

    @override
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start()

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        images = first_tensor(batch)
        if not isinstance(outputs, Mapping) or "logits" not in outputs or "labels" not in outputs or images is None:
            if batch_idx == 0:
                rank_zero_warn(
                    "`PredictionImages` shows nothing: `test_step` must return a mapping with `logits` and `labels`, "
                    "and the batch must hold the images."
                )
            return
        keep = len(images) - ends_in_a_repeat(loader_at(trainer.test_dataloaders, dataloader_idx), batch_idx)
        predicted, true = outputs["logits"].detach()[:keep].argmax(1), outputs["labels"][:keep].long()
        counts = multiclass_confusion_matrix(predicted, true, len(self.class_names), validate_args=False)
        self._counts = counts if self._counts is None else self._counts + counts
        if trainer.is_global_zero:
            parts = [torch.rand(keep, generator=self._generator), images[:keep], predicted, true]
            if self._sample:
                parts = [torch.cat(pair) for pair in zip(self._sample, parts, strict=True)]
            smallest = parts[0].argsort()[: self.rows * self.columns]
            self._sample = [part[smallest.to(part.device)] for part in parts]

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parts = every_rank(trainer, None if self._counts is None else self._counts.cpu())
        known = [part for part in parts if part is not None]
        if not known or not self._sample or not (writers := list(tensorboard_writers(trainer))):
            return
        # Imported here: matplotlib takes half a second that a training alone need not wait for.
        from fmnist_pl.prediction_figures import class_table, confusion_figure, figure_pixels, prediction_grid

        counts = torch.stack(known).sum(0)
        order = torch.randperm(len(self._sample[0]), generator=self._generator)  # the sample comes in order of key
        images, predicted, true = (part[order.to(part.device)].cpu() for part in self._sample[1:])
        guesses, truths = ([self.class_names[label] for label in part.tolist()] for part in (predicted, true))
        grid = prediction_grid(images.float(), guesses, truths, self.rows, self.columns)
        pictures = {"predictions": grid, "confusion_matrix": confusion_figure(counts, self.class_names)}
        pixels = {tag: figure_pixels(figure) for tag, figure in pictures.items()}
        for writer in writers:
            for tag, image in pixels.items():
                writer.add_image(tag, image, trainer.global_step, dataformats="HWC")
            writer.add_text("per_class_accuracy", class_table(counts, self.class_names), trainer.global_step)
