"""The notebooks' split, and that each stage works alone."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fmnist_pl.data import FashionMNISTDataModule
from fmnist_pl.dataset import files as dataset_files
from training_health.errors import UserError

REAL = Path(os.environ.get("DATA_DIR", "data"))
needs_the_real_data = pytest.mark.skipif(
    not (REAL / "FashionMNIST" / "raw").is_dir(), reason=f"Fashion-MNIST is not in {REAL}"
)


@pytest.fixture
def numbered_files(monkeypatch):
    """60 training and 10 test images that show their own number; reading is noted."""
    read = []

    def load_split(root, split, **_options):
        read.append(split)
        count = 60 if split == "train" else 10
        numbers = np.arange(count, dtype=np.uint8)
        return np.broadcast_to(numbers[:, None, None], (count, 28, 28)).copy(), numbers % 10

    monkeypatch.setattr(dataset_files, "load_split", load_split)
    return read


def numbers_in(loader) -> list[int]:
    return [round(value * 255) for batch in loader for value in batch.images[:, 0, 0, 0].tolist()]


def test_a_batch_is_moved_to_another_device_alone(numbered_files):
    data = FashionMNISTDataModule()
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))

    assert data.transfer_batch_to_device(batch, torch.device("cpu"), 0) is batch
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert (moved.images.device.type, moved.labels.device.type) == ("meta", "meta")


def test_validation_is_the_first_part_of_the_training_images_and_training_the_rest(numbered_files):
    data = FashionMNISTDataModule()
    data.setup("fit")

    assert numbers_in(data.val_dataloader()) == list(range(12))  # a fifth where 5,000 would be more
    assert sorted(numbers_in(data.train_dataloader())) == list(range(12, 60))


@pytest.mark.parametrize(
    ("stage", "loader", "files"),
    [
        ("fit", "train_dataloader", ["train"]),
        ("validate", "val_dataloader", ["train"]),
        ("test", "test_dataloader", ["test"]),
        ("predict", "predict_dataloader", ["test"]),
    ],
)
def test_each_stage_works_alone_and_reads_what_it_needs(numbered_files, stage, loader, files):
    data = FashionMNISTDataModule()
    data.setup(stage)
    data.setup(stage)

    assert len(numbers_in(getattr(data, loader)())) > 0
    assert numbered_files == files


def test_what_was_prepared_is_not_read_again(numbered_files):
    data = FashionMNISTDataModule()
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    data.prepare_data()

    assert numbered_files == ["train", "test"]


def test_synthetic_images_are_kept_in_the_root(tmp_path):
    data = FashionMNISTDataModule(root=str(tmp_path), dataset="synthetic")
    data.prepare_data()

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "synthetic-v1-seed0-test-2000.npz",
        "synthetic-v1-seed0-train-12000.npz",
    ]


def test_fewer_training_images_leave_validation_as_it_is(numbered_files):
    data = FashionMNISTDataModule(training_images=5)
    data.setup("fit")

    assert sorted(numbers_in(data.train_dataloader())) == [12, 13, 14, 15, 16]
    assert len(numbers_in(data.val_dataloader())) == 12


def test_more_training_images_than_there_are_are_refused(numbered_files):
    with pytest.raises(UserError, match=r"--data\.training_images=49: there are 48 besides the validation images"):
        FashionMNISTDataModule(training_images=49).setup("fit")


def test_the_order_follows_the_seed(numbered_files):
    def order(seed):
        data = FashionMNISTDataModule(seed=seed)
        data.setup("fit")
        return numbers_in(data.train_dataloader())

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_the_root_comes_from_the_environment_unless_it_is_given(monkeypatch):
    monkeypatch.setenv("DATA_DIR", "elsewhere")

    assert FashionMNISTDataModule().root == Path("elsewhere")
    assert FashionMNISTDataModule(root="here").root == Path("here")


@pytest.mark.parametrize("option", ["batch_size", "training_images"])
def test_a_size_below_one_is_refused(option):
    with pytest.raises(UserError, match=f"--data.{option} must be at least 1, got 0"):
        FashionMNISTDataModule(**{option: 0})


@needs_the_real_data
def test_the_real_split_is_the_notebooks():
    data = FashionMNISTDataModule(root=str(REAL))
    data.setup("fit")
    data.setup("test")

    sizes = [len(loader.images) for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())]
    assert sizes == [55_000, 5_000, 10_000]
    # The published training labels begin: ankle boot, T-shirt, T-shirt, dress, T-shirt, pullover, sneaker.
    assert data.val_dataloader().labels[:7].tolist() == [9, 0, 0, 3, 0, 2, 7]
