"""Find the four Fashion-MNIST files, else download them; hand out only what is proven intact.

Every file is known by the SHA-256 of its unpacked content and checked each time it is read: 0.4 s for all four. Files
are looked for, packed with gzip or not, in `DatasetFiles.folders`, then on the mirrors. A download is put into
``root/FashionMNIST/raw/`` once it is verified. A file that is there already is never changed, replaced or removed.
"""

import gzip
import hashlib
import io
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from filelock import FileLock

from training_health.durable_file import remove_stale_temporaries, replace_durably
from training_health.errors import UserError

Split = Literal["train", "test"]

CLASS_NAMES: tuple[str, ...] = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
TIMEOUT = (5.0, 15.0)  # seconds until a mirror must have accepted a connection, and between two pieces of its answer


class DataFile(NamedTuple):
    """One file of a data set: its name, and size in bytes and hexadecimal SHA-256 of its unpacked content."""

    name: str
    size: int
    sha256: str

    def content(self, data: bytes) -> bytes:
        """The unpacked content of ``data``, packed or not; a ValueError says what is wrong with it."""
        try:  # the limit keeps a small archive from filling the memory
            packed = data.startswith(b"\x1f\x8b")
            content = gzip.GzipFile(fileobj=io.BytesIO(data)).read(self.size + 1) if packed else data
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"a damaged gzip archive: {error}") from None
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != self.sha256:
            swapped = next((f" (those of {file.name})" for file in FASHION_MNIST.all if file.sha256 == sha256), "")
            raise ValueError(f"expected content with SHA-256 {self.sha256}, found {len(content):,} bytes{swapped}")
        return content


@dataclass(frozen=True)
class DatasetFiles:
    """The files of a data set and where they can be had."""

    all: tuple[DataFile, DataFile, DataFile, DataFile]  # training images and labels, test images and labels
    caches: tuple[str, ...] = ("~/.keras/datasets/fashion-mnist",)  # folders of other programs that may hold copies
    # Folders of packed files; the environment variable FMNIST_MIRRORS names others, separated by commas.
    mirrors: tuple[str, ...] = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)

    def of(self, split: Split) -> tuple[DataFile, ...]:
        """The images' and the labels' file of a split."""
        return self.all[:2] if split == "train" else self.all[2:]

    def folders(self, root: Path) -> list[Path]:
        """Where to look, in turn: torchvision's layout under ``root``, ``root`` itself, other programs' caches."""
        return [raw_folder(root), root.expanduser(), *(Path(cache).expanduser() for cache in self.caches)]

    def addresses(self) -> list[str]:
        """The mirrors to ask, https first."""
        named = [url.strip() for url in os.environ.get("FMNIST_MIRRORS", "").split(",") if url.strip()]
        return sorted(named or self.mirrors, key=lambda url: not url.startswith("https:"))


FASHION_MNIST = DatasetFiles((
    DataFile("train-images-idx3-ubyte", 47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    DataFile("train-labels-idx1-ubyte", 60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    DataFile("t10k-images-idx3-ubyte", 7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    DataFile("t10k-labels-idx1-ubyte", 10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
))  # fmt: skip


def raw_folder(root: Path) -> Path:
    """Where torchvision keeps the files under ``root``."""
    return root.expanduser() / "FashionMNIST" / "raw"


def load_split(
    root: Path, split: Split, *, download: bool = True, dataset: DatasetFiles = FASHION_MNIST
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one split, verified. Only this split's two files are needed.

    ``root`` holds ``FashionMNIST/raw/`` or the files themselves, or what is found nowhere is downloaded into it; if all
    is there it may be read-only.

    Returns:
        Images (N, 28, 28) uint8 and labels (N,) uint8 in 0..9, in the order of the files.

    Raises:
        UserError: A file under ``root`` is not the right one, or there is no data; the message says what to do.
    """
    images, labels = _obtain(root, dataset.of(split), download, dataset)
    # Known to the last byte: IDX headers of 16 and 8 bytes, then the values. Copied, so that they can be written to.
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels.copy(), np.frombuffer(labels, np.uint8, offset=8).copy()


def _obtain(root: Path, files: Sequence[DataFile], download: bool, dataset: DatasetFiles) -> list[bytes]:
    folder, tried = raw_folder(root), [f"files in {folder}" for folder in dataset.folders(root)]
    found = {file: _find(root, file, dataset, tried) for file in files}
    if download and None in found.values():
        mirrors = dataset.addresses()
        print(f"Not all data are there: downloading into {folder}, or waiting for a process that does", file=sys.stderr)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):  # of several processes one downloads; the others wait and find the files
                remove_stale_temporaries(folder)
                for file in files:
                    found[file] = found[file] or _find(root, file, dataset, []) or _fetch(file, folder, mirrors, tried)
        except OSError as error:
            tried.append(f"writing into {folder}: {error.strerror or error}")
    contents = [content for content in found.values() if content is not None]
    if len(contents) < len(files):
        names = ", ".join(f"{file.name}.gz" for file in dataset.all)
        raise UserError(
            "\n  - ".join(["there is no Fashion-MNIST data to be had. Tried:", *tried])
            + f"\nWhat to do: put {names} into {folder}; or name the folder that holds them with DATA_DIR=... "
            "(--data.root=...); or name another mirror with FMNIST_MIRRORS=https://...; or train on synthetic images, "
            "which need no files: DATASET=synthetic (--data.dataset=synthetic)."
        )
    return contents


def _find(root: Path, file: DataFile, dataset: DatasetFiles, tried: list[str]) -> bytes | None:
    """The content of the first intact copy; None where there is no file, an error where the user's is a wrong one."""
    wrong: list[str] = []
    for folder in dataset.folders(root):
        for path in filter(os.path.lexists, (folder / f"{file.name}.gz", folder / file.name)):
            try:
                if not path.is_file():
                    raise ValueError("not a regular file")
                with path.open("rb") as opened:
                    return file.content(opened.read(file.size + (1 << 16)))  # packing adds less, if anything
            except (OSError, ValueError) as error:
                users = path.is_relative_to(root.expanduser())
                (wrong if users else tried).append(f"{path} is not usable: {_reason(error)}.")
    if wrong:
        raise UserError("\n".join([*wrong, "Replace it with an intact copy, or remove it to have it downloaded."]))
    return None


def _fetch(file: DataFile, folder: Path, mirrors: list[str], tried: list[str]) -> bytes | None:
    """Download ``file`` from the first mirror that has it; mirrors that fail are taken out of the list."""
    import pooch  # here: needed for a download alone

    download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 16, timeout=TIMEOUT)
    while mirrors:
        url, buffer = f"{mirrors[0].rstrip('/')}/{file.name}.gz", io.BytesIO()
        print(f"Downloading {url}", file=sys.stderr, flush=True)
        try:
            download(url, buffer, None)
            content = file.content(buffer.getvalue())
        except (OSError, ValueError) as error:  # every error of requests is one of these
            tried.append(f"{url}: {_reason(error)}")
            del mirrors[0]
        else:
            replace_durably(folder / f"{file.name}.gz", buffer.getvalue())
            return content
    return None


def _reason(error: BaseException) -> str:
    """What was wrong in the first place: requests wraps the system's error several times."""
    while not isinstance(error, ValueError) and error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
