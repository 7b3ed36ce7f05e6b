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
from typing_extensions import override

from training_health.batches import ends_in_a_repeat, first_tensor
from training_health.lightning import every_rank, loader_at
from training_health.sinks import tensorboard_writers


class PredictionImages(Callback):
    """After ``trainer.test``, write to TensorBoard what the network took each class for.

    * image ``predictions``: random test images, each titled "predicted (true)", green where right and red where wrong;
    * image ``confusion_matrix``: counts, and each row's shares as shades;
    * text ``per_class_accuracy``: a table of class, images and accuracy.

    ``test_step`` must return a mapping with ``logits`` (N, classes) and ``labels`` (N,); the images are the batch's
    first tensor, (N, 1 or 3, H, W) in [0, 1]. Counts are exact over all processes; the pictures come from the first.
    Loggers other than TensorBoard's get nothing.

    Cost: one bincount per test batch, and about a second of drawing at the end.

    Args:
        class_names: Name of each class, in label order.
        rows: Of the grid.
        columns: Of the grid.
        seed: Of the choice of images; independent of the global generators.

    Raises:
        MisconfigurationException: Without class names, or for a grid without images.
    """

    def __init__(self, class_names: Sequence[str], rows: int = 3, columns: int = 5, seed: int = 0) -> None:
        if not class_names:
            raise MisconfigurationException("`PredictionImages` needs the class names, in label order.")
        if rows < 1 or columns < 1:
            raise MisconfigurationException(f"A grid of {rows} x {columns} has no images: use at least 1 x 1.")
        self.class_names, self.rows, self.columns, self.seed = list(class_names), rows, columns, seed
        self._counts: Tensor | None = None
        self._said_missing = False
        self._start()

    def _start(self) -> None:
        self._counts = None
        self._generator = torch.Generator().manual_seed(self.seed)
        # The images with the smallest random keys so far: a uniform sample of a stream of unknown length.
        self._keys = torch.empty(0)
        self._images, self._predicted, self._true = torch.empty(0), torch.empty(0), torch.empty(0)

    def confusion(self) -> list[list[int]]:
        """Counts over this process's test images so far: row true, column predicted."""
        return [] if self._counts is None else self._counts.tolist()

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
            self._say_missing()
            return
        keep = len(images) - ends_in_a_repeat(loader_at(trainer.test_dataloaders, dataloader_idx), batch_idx)
        predicted, true = outputs["logits"].detach()[:keep].argmax(1), outputs["labels"][:keep].long()
        classes = len(self.class_names)
        counts = torch.zeros(classes * classes, dtype=torch.int64, device=predicted.device)
        counts.scatter_add_(0, true * classes + predicted, torch.ones_like(true))
        counts = counts.view(classes, classes)
        self._counts = counts if self._counts is None else self._counts + counts
        if trainer.is_global_zero:
            self._sample(images[:keep], predicted, true)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parts = every_rank(trainer, None if self._counts is None else self._counts.cpu())
        known = [part for part in parts if part is not None]
        writers = list(tensorboard_writers(trainer))
        if not known or not writers:
            return
        # Imported here: matplotlib takes half a second that a training alone need not wait for.
        from fmnist_pl.prediction_figures import class_table, confusion_figure, figure_pixels, prediction_grid

        counts = torch.stack(known).sum(0)
        order = torch.randperm(len(self._keys), generator=self._generator)  # the sample comes in order of key
        grid = prediction_grid(
            self._images[order].float().cpu(),
            [self.class_names[i] for i in self._predicted[order].tolist()],
            [self.class_names[i] for i in self._true[order].tolist()],
            self.rows,
            self.columns,
        )
        pictures = {"predictions": grid, "confusion_matrix": confusion_figure(counts, self.class_names)}
        pixels = {tag: figure_pixels(figure) for tag, figure in pictures.items()}
        for writer in writers:
            for tag, image in pixels.items():
                writer.add_image(tag, image, trainer.global_step, dataformats="HWC")
            writer.add_text("per_class_accuracy", class_table(counts, self.class_names), trainer.global_step)

    def _sample(self, images: Tensor, predicted: Tensor, true: Tensor) -> None:
        keys = torch.cat([self._keys, torch.rand(len(images), generator=self._generator)])
        smallest = keys.argsort()[: self.rows * self.columns]
        fresh = len(self._keys) == 0
        self._keys = keys[smallest]
        chosen = smallest.to(images.device)
        self._images = (images if fresh else torch.cat([self._images, images]))[chosen]
        self._predicted = (predicted if fresh else torch.cat([self._predicted, predicted]))[chosen]
        self._true = (true if fresh else torch.cat([self._true, true]))[chosen]

    def _say_missing(self) -> None:
        if not self._said_missing:
            self._said_missing = True
            rank_zero_warn(
                "`PredictionImages` draws nothing: `test_step` must return a mapping with `logits` and `labels`, and "
                "the batch must hold the images."
            )
