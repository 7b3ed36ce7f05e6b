"""Find the four Fashion-MNIST files, else fetch them; hand out only what is proven intact.

Every file is known by the SHA-256 of its unpacked content and checked each time it is read: 0.4 s for all four. Files
are looked for, packed with gzip or not, under ``root`` and in the folders of other programs, where they are read in
place; then in Hugging Face's caches, on the mirrors and in Debian's package. What is fetched from these three is put
into ``root/FashionMNIST/raw/`` once it is verified, file by file, so that a fetch that was cut short is continued with
the next file. A file that is there already is never changed, replaced or removed. Where ``root`` does not have all,
each source that is tried is named on standard error in one line.
"""

import gzip
import hashlib
import io
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from filelock import FileLock

from fmnist_pl.dataset.elsewhere import hugging_face_tables, read_pictures, unpack_debian_package
from training_health.durable_file import remove_stale_temporaries, replace_durably
from training_health.errors import UserError

Split = Literal["train", "test"]

CLASS_NAMES: tuple[str, ...] = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_GZIP = b"\x1f\x8b"  # the first bytes of what is packed
TIMEOUT = (5.0, 15.0)  # seconds until a mirror must have accepted a connection, and between two pieces of its answer


class DataFile(NamedTuple):
    """One file of a data set: its name, and size in bytes and hexadecimal SHA-256 of its unpacked content."""

    name: str
    size: int
    sha256: str

    def content(self, data: bytes) -> bytes:
        """The unpacked content of ``data``, packed or not; a ValueError says what is wrong with it."""
        try:  # the limit keeps a small archive from filling the memory
            packed = data.startswith(_GZIP)
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
    caches: tuple[str, ...] = ()  # folders of other programs that may hold copies
    # Folders of packed files; the environment variable FMNIST_MIRRORS names others, separated by commas.
    mirrors: tuple[str, ...] = ()
    hugging_face: str = ""  # its name there
    package: str = ""  # Debian's
    packaged: str = ""  # the folder in which the package has its files

    def of(self, split: Split) -> tuple[DataFile, ...]:
        """The images' and the labels' file of a split."""
        return self.all[:2] if split == "train" else self.all[2:]

    def elsewhere(self, root: Path) -> list[Path]:
        """The folders of other programs, in turn; those of unset environment variables and ``root``'s are left out."""
        folders = [Path(os.path.expandvars(cache)).expanduser() for cache in self.caches]
        return [path for path in folders if "$" not in str(path) and path.resolve() != raw_folder(root).resolve()]

    def addresses(self) -> list[str]:
        """The mirrors to ask, https first."""
        named = [url.strip() for url in os.environ.get("FMNIST_MIRRORS", "").split(",") if url.strip()]
        return sorted(named or self.mirrors, key=lambda url: not url.startswith("https:"))


_PACKAGED = "/usr/share/datasets/fashion-mnist"
_FILES = (
    DataFile("train-images-idx3-ubyte", 47_040_016, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
    DataFile("train-labels-idx1-ubyte", 60_008, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    DataFile("t10k-images-idx3-ubyte", 7_840_016, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    DataFile("t10k-labels-idx1-ubyte", 10_008, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
)
FASHION_MNIST = DatasetFiles(
    _FILES,
    caches=(
        "$KERAS_HOME/datasets/fashion-mnist",
        "~/.keras/datasets/fashion-mnist",
        "data/FashionMNIST/raw",  # here, or in the home folder: where programs that use torchvision mostly have them
        "~/data/FashionMNIST/raw",
        _PACKAGED,
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    hugging_face="fashion_mnist",
    package="dataset-fashion-mnist",
    packaged=_PACKAGED,
)


def raw_folder(root: Path) -> Path:
    """Where torchvision keeps the files under ``root``."""
    return root.expanduser() / "FashionMNIST" / "raw"


def load_split(
    root: Path, split: Split, *, download: bool = True, dataset: DatasetFiles = FASHION_MNIST
) -> tuple[np.ndarray, np.ndarray]:
    """The images and labels of one split, verified. Only this split's two files are needed.

    ``root`` holds ``FashionMNIST/raw/`` or the files themselves, or what is found nowhere is fetched into it; if all
    is there it may be read-only.

    Args:
        root: Where the data are, or shall be.
        split: "train" or "test".
        download: Fetch what no folder holds.
        dataset: The files, and where they can be had.

    Returns:
        Images (N, 28, 28) uint8 and labels (N,) uint8 in 0..9, in the order of the files.

    Raises:
        UserError: A file under ``root`` is not the right one, or there is no data; the message says what to do.
    """
    images, labels = _Search(root, dataset).obtain(dataset.of(split), download)
    # Known to the last byte: IDX headers of 16 and 8 bytes, then the values. Copied, so that they can be written to.
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels.copy(), np.frombuffer(labels, np.uint8, offset=8).copy()


def find_or_fetch(root: Path, dataset: DatasetFiles = FASHION_MNIST) -> list[Path]:
    """See to it that all four files can be read, and return the folders that hold them; raises as `load_split`."""
    search = _Search(root, dataset)
    search.obtain(dataset.all, download=True)
    return list(dict.fromkeys(search.folders))


class _Search:
    """Looks for files in one source after the other and says so."""

    def __init__(self, root: Path, dataset: DatasetFiles) -> None:
        self.root, self.dataset, self.raw = root.expanduser(), dataset, raw_folder(root)
        self.found: dict[DataFile, bytes] = {}
        self.folders: list[Path] = []  # of what was found
        self.tried: list[str] = []

    def obtain(self, files: Sequence[DataFile], download: bool) -> list[bytes]:
        """The files' contents, in their order."""
        wrong = self._look_under_root(files)
        if missing := self._missing(files):
            self._say(f"{self.raw}: {len(files) - len(missing)} of {len(files)} files")
        for folder in self.dataset.elsewhere(self.root):
            if missing := self._missing(files):
                unusable = self._look(folder, missing)
                there = f"{len(missing) - len(self._missing(files))} of {len(missing)} files" if folder.is_dir() else ""
                self._say("; ".join([f"{folder}: {there or 'not there'}", *unusable]))
        if lines := [line for file in self._missing(files) for line in wrong[file]]:
            raise UserError("\n".join([*lines, "Replace it with an intact copy, or remove it to have it fetched."]))
        if download and self._missing(files):
            try:
                self.raw.mkdir(parents=True, exist_ok=True)
                with FileLock(self.raw / ".lock"):  # of several processes one fetches; the others wait and find
                    remove_stale_temporaries(self.raw)
                    self._look_under_root(files)
                    self._fetch(files)
            except OSError as error:
                self._say(f"writing into {self.raw}: {error.strerror or error}")
        if self._missing(files):
            names = ", ".join(f"{file.name}.gz" for file in self.dataset.all)
            raise UserError(
                "\n  - ".join(["there is no Fashion-MNIST data to be had. Tried:", *self.tried])
                + f"\nWhat to do: put {names} into {self.raw}; or name the folder that holds them with DATA_DIR=... "
                "(--data.root=...); or name another mirror with FMNIST_MIRRORS=https://...; or train on synthetic "
                "images, which need no files: DATASET=synthetic (--data.dataset=synthetic)."
            )
        return [self.found[file] for file in files]

    def _missing(self, files: Sequence[DataFile]) -> list[DataFile]:
        return [file for file in files if file not in self.found]

    def _say(self, line: str) -> None:
        if not self.tried:
            print(f"Looking for Fashion-MNIST, of which {self.root} does not have all:", file=sys.stderr)
        self.tried.append(line)
        print(f"  {line}", file=sys.stderr, flush=True)

    def _look_under_root(self, files: Sequence[DataFile]) -> dict[DataFile, list[str]]:
        """Look where the user keeps files; what is wrong with those that are no good."""
        return {file: self._look(self.raw, [file]) + self._look(self.root, [file]) for file in self._missing(files)}

    def _look(self, folder: Path, files: Sequence[DataFile]) -> list[str]:
        """Take the intact files in ``folder``; what is wrong with the others."""
        wrong = []
        for file in self._missing(files):
            for path in filter(os.path.lexists, (folder / f"{file.name}.gz", folder / file.name)):
                try:
                    if not path.is_file():
                        raise ValueError("not a regular file")
                    with path.open("rb") as opened:
                        content = opened.read(file.size + (1 << 16))  # packing adds less, if anything
                    self.found[file] = file.content(content)
                    self.folders.append(folder)
                    break
                except (OSError, ValueError) as error:
                    wrong.append(f"{path} is not usable: {_reason(error)}.")
        return wrong

    def _fetch(self, files: Sequence[DataFile]) -> None:
        """Try what must be fetched and kept, until nothing is missing; the lock is held."""
        sources: list[tuple[object, Callable[[Sequence[DataFile]], None]]] = [
            (self.dataset.hugging_face, self._from_hugging_face),
            (self.dataset.addresses(), self._from_mirrors),
            (self.dataset.package, self._from_package),
        ]
        for known, source in sources:
            if known and (missing := self._missing(files)):
                source(missing)

    def _keep(self, file: DataFile, data: bytes, content: bytes) -> None:
        replace_durably(self.raw / f"{file.name}.gz", data if data.startswith(_GZIP) else gzip.compress(data, 1))
        self.found[file] = content
        self.folders.append(self.raw)

    def _from_hugging_face(self, files: Sequence[DataFile]) -> None:
        name = self.dataset.hugging_face
        pairs = {split: self.dataset.of(split) for split in get_args(Split)}
        copies = {split: hugging_face_tables(name, split) for split, pair in pairs.items() if set(pair) & set(files)}
        if not any(copies.values()):
            self._say(f"the caches of Hugging Face: no {name}")
        for split, found in copies.items():
            for tables in found:
                try:
                    contents = [
                        file.content(data) for file, data in zip(pairs[split], read_pictures(tables), strict=True)
                    ]
                except ImportError as error:
                    self._say(f"{tables[0]}: reading it needs {error.name}, which is not installed")
                except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
                    self._say(f"{tables[0]} is not usable: {_reason(error)}")
                else:
                    self._say(f"{tables[0]}: images and labels, converted into {self.raw}")
                    for file, content in zip(pairs[split], contents, strict=True):
                        if file in files:
                            self._keep(file, content, content)
                    break

    def _from_mirrors(self, files: Sequence[DataFile]) -> None:
        """Download from the first mirror that has the files; one that fails is not asked again."""
        import pooch  # here: needed for a download alone

        download = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 16, timeout=TIMEOUT)
        for mirror in self.dataset.addresses():
            for file in self._missing(files):
                url, buffer = f"{mirror.rstrip('/')}/{file.name}.gz", io.BytesIO()
                self._say(f"downloading {url}")
                try:
                    download(url, buffer, None)
                    content = file.content(buffer.getvalue())
                except (OSError, ValueError) as error:  # every error of requests is one of these
                    self._say(f"{url}: {_reason(error)}")
                    break
                self._keep(file, buffer.getvalue(), content)

    def _from_package(self, files: Sequence[DataFile]) -> None:
        """Take the files, and those that nobody asked for yet, out of Debian's package."""
        source = f"apt-get download {self.dataset.package}"
        self._say(f"{source}, unpacked in a temporary folder (31 MB)")
        with tempfile.TemporaryDirectory(prefix="fmnist-") as temporary:
            try:
                unpacked = unpack_debian_package(self.dataset.package, Path(temporary))
            except OSError as error:
                self._say(f"{source}: {error.strerror or error}")
                return
            folder = unpacked / self.dataset.packaged.lstrip("/")
            for file in self.dataset.all:
                path = folder / f"{file.name}.gz"
                if file in files or not os.path.lexists(self.raw / path.name):
                    try:
                        data = path.read_bytes()
                        content = file.content(data)
                    except (OSError, ValueError) as error:
                        self._say(f"{source}: {path.name}: {_reason(error)}")
                    else:
                        self._keep(file, data, content)
        if not self._missing(files):
            self._say(f"{source}: verified, written into {self.raw}")


def _reason(error: BaseException) -> str:
    """What was wrong in the first place: requests wraps the system's error several times."""
    while not isinstance(error, ValueError) and error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
