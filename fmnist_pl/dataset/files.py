"""Find the four Fashion-MNIST files, else download them; hand out only what is proven intact.

Every file is known by the SHA-256 of its unpacked content and checked each time it is read, which costs 0.4 s for all
four. Packed files are unpacked in memory, so that a read-only folder serves as well as any other. Files are looked for

1. in ``root/FashionMNIST/raw/`` (torchvision's layout), packed (``.gz``) or unpacked,
2. in Keras's cache, ``~/.keras/datasets/fashion-mnist/``, packed,
3. on the mirrors: torchvision's list, or the environment variable FMNIST_MIRRORS (http or https addresses of folders,
   separated by commas). What comes from there is put into ``root/FashionMNIST/raw/`` with a receipt beside it.

A damaged file with a receipt is ours and is downloaded anew, once. A damaged file without one is the user's: it is
named in an error and never touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fmnist_pl.dataset.download import PATIENCE
from fmnist_pl.dataset.folder_lock import folder_lock
from fmnist_pl.dataset.idx_format import DataFileError, check_pair, decode_images, decode_labels
from fmnist_pl.dataset.mirrors import download_files, mirror_urls
from fmnist_pl.dataset.verified_file import DataFile, has_receipt, read_verified
from training_health.errors import UserError

Split = Literal["train", "test"]

CLASS_NAMES: tuple[str, ...] = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

KERAS_CACHE = Path("~/.keras/datasets/fashion-mnist")
_LEFT_ALONE = (
    "It is not a download of this program, which leaves it alone: replace it with an intact copy or remove it."
)


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a data set and where they can be had.

    Attributes:
        train: Files of the training images and labels.
        test: Files of the test images and labels.
        mirrors: Addresses of folders that hold the packed files. None: FMNIST_MIRRORS, else torchvision's list.
        patience: Seconds after which a silent mirror is given up.
    """

    train: tuple[DataFile, DataFile]
    test: tuple[DataFile, DataFile]
    mirrors: tuple[str, ...] | None = None
    patience: float = PATIENCE

    @property
    def all(self) -> tuple[DataFile, ...]:
        """All four."""
        return self.train + self.test


FASHION_MNIST = DatasetFiles(
    train=(
        DataFile(
            "train-images-idx3-ubyte", 47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        DataFile("train-labels-idx1-ubyte", 60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    ),
    test=(
        DataFile(
            "t10k-images-idx3-ubyte", 7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        DataFile("t10k-labels-idx1-ubyte", 10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ),
)


def load_split(
    root: Path,
    split: Split,
    *,
    download: bool = True,
    keras_cache: Path | None = KERAS_CACHE,
    dataset: DatasetFiles = FASHION_MNIST,
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one split, verified. Only this split's two files are needed.

    Args:
        root: Folder that holds ``FashionMNIST/raw/``, or shall.
        split: "train" (60,000 images) or "test" (10,000).
        download: Whether what is found nowhere may be downloaded into ``root``.
        keras_cache: Second folder to look in; None for no second folder.
        dataset: The files, their hashes and mirrors.

    Returns:
        Images (N, 28, 28) uint8 and labels (N,) uint8 in 0..9, in the order of the files.

    Raises:
        UserError: A file of the user's is damaged, or there is no data to be had; the message says what to do.
    """
    images_file, labels_file = dataset.train if split == "train" else dataset.test
    packed_images, packed_labels = _obtain(Path(root), (images_file, labels_file), download, keras_cache, dataset)
    images = decode_images(packed_images.content, packed_images.path)
    labels = decode_labels(packed_labels.content, packed_labels.path)
    check_pair(images, labels, packed_labels.path)
    return images, labels


def prepare(
    root: Path,
    splits: Sequence[Split] = ("train", "test"),
    *,
    download: bool = True,
    keras_cache: Path | None = KERAS_CACHE,
    dataset: DatasetFiles = FASHION_MNIST,
) -> None:
    """Make sure that `load_split` will find the files of ``splits``: find and verify them, else download them.

    For one process to call before others read. Arguments and errors are those of `load_split`.
    """
    files = [file for split in splits for file in (dataset.train if split == "train" else dataset.test)]
    _obtain(Path(root), files, download, keras_cache, dataset)


def raw_folder(root: Path) -> Path:
    """Where torchvision keeps the files under ``root``."""
    return root.expanduser() / "FashionMNIST" / "raw"


class _Found(NamedTuple):
    path: Path
    content: bytes


class _Search:
    """Looks for files in the two folders and remembers why it did not find them."""

    def __init__(self, folder: Path, keras_cache: Path | None, dataset: DatasetFiles) -> None:
        self.folder, self.dataset = folder, dataset
        self.keras_cache = keras_cache.expanduser() if keras_cache else None
        self.found: dict[str, _Found] = {}
        self.failures: list[str] = []

    def look_for(self, files: Sequence[DataFile]) -> list[DataFile]:
        """Fill ``found``; return what is still missing. A damaged file of the user's in ``folder`` is an error."""
        self.failures = []
        for file in files:
            if file.name not in self.found:
                found = self._in_folder(file) or self._in_keras_cache(file)
                if found:
                    self.found[file.name] = found
        return [file for file in files if file.name not in self.found]

    def _in_folder(self, file: DataFile) -> _Found | None:
        damaged: list[tuple[Path, DataFileError]] = []
        paths = (self.folder / file.packed_name, self.folder / file.name)
        for path in filter(_is_there, paths):
            try:
                return _Found(path, read_verified(path, file, self.dataset.all, _LEFT_ALONE))
            except DataFileError as error:
                damaged.append((path, error))
        if not damaged:
            self.failures.append(f"{paths[0]}: not there")
            return None
        for path, _ in damaged:
            if has_receipt(path):
                self.failures.append(f"{path}: a download that got damaged")
                return None
        raise damaged[0][1]

    def _in_keras_cache(self, file: DataFile) -> _Found | None:
        if self.keras_cache is None:
            return None
        path = self.keras_cache / file.packed_name
        if not _is_there(path):
            self.failures.append(f"{path}: not there")
            return None
        try:
            return _Found(path, read_verified(path, file, self.dataset.all))
        except DataFileError as error:  # another program's leftover: no reason not to download
            self.failures.append(str(error))
            return None


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # denied: reading it will say so
        return True
    return True


def _obtain(
    root: Path, files: Sequence[DataFile], download: bool, keras_cache: Path | None, dataset: DatasetFiles
) -> list[_Found]:
    search = _Search(raw_folder(root), keras_cache, dataset)
    missing = search.look_for(files)
    failures = ["downloading is switched off"]
    if missing and download:
        failures = []
        mirrors = mirror_urls() if dataset.mirrors is None else dataset.mirrors
        try:
            with folder_lock(search.folder, "downloading into"):
                missing = search.look_for(files)  # another process may have brought them while this one waited
                if missing:
                    failures = download_files(search.folder, missing, dataset.all, mirrors, dataset.patience)
                    missing = search.look_for(files)
        except OSError as error:
            failures.append(f"{search.folder}: cannot be written to: {error.strerror or error}")
    if missing:
        raise UserError(_no_data(search.folder, search.failures + failures, dataset))
    return [search.found[file.name] for file in files]


def _no_data(folder: Path, failures: Sequence[str], dataset: DatasetFiles) -> str:
    tried = "".join(f"\n  - {failure}" for failure in failures)
    names = ", ".join(file.packed_name for file in dataset.all)
    return (
        f"there is no Fashion-MNIST data to be had. Tried:{tried}\n"
        f"What to do: put {names} into {folder}; or name the folder that holds FashionMNIST/raw/ with DATA_DIR=... "
        f"(--data.root=...); or name another mirror with FMNIST_MIRRORS=http://...; "
        f"or train on drawn garments, which need no files: DATASET=synthetic (--data.dataset=synthetic)."
    )
