"""The data module: which images, which split, which batches."""

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fmnist_pl.dataset import files as dataset_files
from fmnist_pl.dataset.files import Split
from fmnist_pl.dataset.synthetic import SYNTHETIC_IMAGES, load_synthetic
from fmnist_pl.loader import Batch, BatchLoader, device_tensors, evaluation_batch
from training_health.errors import UserError

VALIDATION_IMAGES = {  # the first of the training images: the notebooks' 5,000 of 60,000; of synthetic ones a fifth
    "fashion_mnist": 5_000,
    "synthetic": SYNTHETIC_IMAGES["train"] // 5,
}


class FashionMNISTDataModule(pl.LightningDataModule):
    """Fashion-MNIST in memory; validation is the first 5,000 training images.

    Batches are `fmnist_pl.loader.Batch`: images (N, 1, 28, 28) float32 in [0, 1], labels (N,) int64, weight.

    Args:
        root: Folder that holds ``FashionMNIST/raw/``, or shall. Default: the environment variable DATA_DIR, else
            ``data``.
        dataset: "fashion_mnist", or "synthetic" for rendered images of ten classes that need no files.
        batch_size: Training images per batch and device.
        seed: Seed of the order of the training images and of all randomness in the training steps.
        augmentation: Transforms of a training batch (N, 1, 28, 28), applied in turn. torchvision.transforms.v2 decides
            once for a whole batch; those of `fmnist_pl.augmentation` decide for each image.
        training_images: Use only the first so many of the training images. Default: all.

    Raises:
        UserError: A size below 1; in `prepare_data` and `setup`, that there is no data or a wrong file.

    Example:
        >>> import tempfile
        >>> data = FashionMNISTDataModule(root=tempfile.mkdtemp(), dataset="synthetic", batch_size=32)
        >>> data.setup("test")
        >>> batch = next(iter(data.test_dataloader()))
        >>> batch.images.shape, batch.labels.shape
        (torch.Size([100, 1, 28, 28]), torch.Size([100]))
    """

    def __init__(
        self,
        root: str | None = None,
        dataset: Literal["fashion_mnist", "synthetic"] = "fashion_mnist",
        batch_size: int = 64,
        seed: int = 0,
        augmentation: list[nn.Module] | None = None,
        training_images: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("training_images", training_images)):
            if value is not None and value < 1:
                raise UserError(f"--data.{name} must be at least 1, got {value}.", exit_code=2)
        self.root = Path(root or os.environ.get("DATA_DIR") or "data")
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.augmentation = nn.Sequential(*augmentation) if augmentation else None
        self.training_images = training_images
        self._tensors: dict[str, tuple[Tensor, Tensor]] = {}
        self._arrays: dict[Split, tuple[np.ndarray, np.ndarray]] = {}  # from prepare_data to setup

    def prepare_data(self) -> None:
        """Find the files, or download them, or render; one process does it for all, and keeps what it read."""
        stage = None if self.trainer is None else self.trainer.state.fn
        splits: tuple[Split, ...] = ("test",) if stage in {"test", "predict"} else ("train", "test")
        new = [split for split in splits if split not in self._arrays and split not in self._tensors]
        self._arrays |= {split: self._load(split) for split in new}

    def setup(self, stage: str) -> None:
        """Read and verify the images that ``stage`` needs: fit, validate, test or predict."""
        if stage in {"fit", "validate"} and "train" not in self._tensors:
            images, labels = self._read("train")
            held_out = min(VALIDATION_IMAGES[self.dataset], len(images) // 5)
            there = len(images) - held_out
            resumes = self.trainer is not None and self.trainer.ckpt_path is not None  # a run of an earlier version
            if (wanted := self.training_images or 0) > there and not resumes:
                raise UserError(
                    f"--data.training_images={wanted}: there are {there:,} besides the validation images. Give at most "
                    "that many, or leave the option out for all.",
                    exit_code=2,
                )
            last = held_out + wanted if wanted else None
            self._tensors["val"] = (images[:held_out], labels[:held_out])
            self._tensors["train"] = (images[held_out:last], labels[held_out:last])
        if stage in {"test", "predict"} and "test" not in self._tensors:
            self._tensors["test"] = self._read("test")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:  # noqa: ANN401
        """Its batches are there already; Lightning would look through each."""
        if isinstance(batch, Batch) and batch.images.device == device:
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def train_dataloader(self) -> BatchLoader:
        """The training images, in another order each epoch, with augmentation."""
        shuffle = getattr(self.trainer, "overfit_batches", 0) == 0
        return self._loader("train", self.batch_size, shuffle=shuffle, seed=self.seed, augmentation=self.augmentation)

    def val_dataloader(self) -> BatchLoader:
        """The first training images, 5,000 or of synthetic ones a fifth, in their order."""
        return self._loader("val")

    def test_dataloader(self) -> BatchLoader:
        """The 10,000 test images in their order."""
        return self._loader("test")

    predict_dataloader = test_dataloader

    def _load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        return (load_synthetic if self.dataset == "synthetic" else dataset_files.load_split)(self.root, split)

    def _read(self, split: Split) -> tuple[Tensor, Tensor]:
        images, labels = self._arrays.pop(split) if split in self._arrays else self._load(split)
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return device_tensors(images, labels, device)

    def _loader(self, part: str, batch_size: int | None = None, **options: object) -> BatchLoader:
        images, labels = self._tensors[part]
        batch_size = batch_size or evaluation_batch(images.device)
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        return BatchLoader(images, labels, batch_size, rank=rank, world_size=world_size, **options)  # type: ignore[arg-type]
