"""Copies of a data set that take work to read: tables of pictures in Hugging Face's caches, a package of Debian's."""

import io
import itertools
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_WAIT = ("-o=Acquire::Retries=1", "-o=Acquire::http::Timeout=15", "-o=Acquire::https::Timeout=15")
_AT_MOST = 900  # seconds for one call of apt-get: the package has 31 MB


def hugging_face_tables(name: str, split: str) -> list[list[Path]]:
    """The files of a split in the caches of Hugging Face's ``datasets`` and ``huggingface_hub``, one list per copy."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("HF_HOME") or cache / "huggingface")
    converted = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
    downloaded = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    files = [
        *converted.glob(f"*{name}/**/*-{split}*.arrow"),
        *downloaded.glob(f"datasets--*{name}/snapshots/**/{split}-*.parquet"),
    ]
    return [list(copy) for _, copy in itertools.groupby(sorted(files), key=lambda path: path.parent)]


def read_pictures(files: Sequence[Path]) -> tuple[bytes, bytes]:
    """Images and labels of one copy's tables in the IDX format.

    Raises:
        ImportError: pyarrow, which reads such tables, is not installed.
        OSError, ValueError, KeyError, TypeError: They are damaged, or have other columns.
    """
    import pyarrow as pa
    import pyarrow.parquet
    from PIL import Image

    pictures, labels = [], []
    for path in files:
        with pa.memory_map(str(path)) as file:
            table = pa.parquet.read_table(file) if path.suffix == ".parquet" else pa.ipc.open_stream(file).read_all()
            pictures += [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in table["image"].to_pylist()]
            labels += table["label"].to_pylist()
    return _idx(np.stack(pictures)), _idx(np.array(labels))


def _idx(values: np.ndarray) -> bytes:
    """Two zero bytes, the type (8: bytes), the shape, big-endian, and the values."""
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return head + values.astype(np.uint8).tobytes()


def unpack_debian_package(name: str, folder: Path) -> Path:
    """Download a package with ``apt-get`` and unpack it in ``folder``; nothing is installed, no root is needed.

    Where the machine's package lists are missing or outdated, as in a fresh container, lists of our own are fetched.

    Returns:
        The folder that holds what would lie under ``/``.

    Raises:
        OSError: There is no ``apt-get``, the package cannot be had, ...; the message says which.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"there is no {tool} here")
    try:
        _run("apt-get", *_WAIT, "download", name, cwd=folder)
    except OSError:
        lists = folder / "lists"
        (lists / "partial").mkdir(parents=True)
        own = (f"-o=Dir::State::lists={lists}", f"-o=Dir::Cache={folder / 'cache'}", "-o=APT::Sandbox::User=root")
        _run("apt-get", *_WAIT, *own, "update", cwd=folder)
        _run("apt-get", *_WAIT, *own, "download", name, cwd=folder)
    for file in folder.glob("*.deb"):
        _run("dpkg-deb", "-x", str(file), str(folder / "unpacked"), cwd=folder)
    return folder / "unpacked"


def _run(*command: str, cwd: Path) -> None:
    """Run a tool, its progress shown on a terminal; OSError with its message if it fails."""
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=shown, stderr=subprocess.PIPE,
            text=True, errors="replace", timeout=_AT_MOST, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{command[0]} did not end within {_AT_MOST} seconds") from None
    if done.returncode != 0:
        errors = [line.removeprefix("E: ") for line in done.stderr.splitlines() if not line.startswith("W: ")]
        raise OSError(f"{command[0]} ended with status {done.returncode}: {' '.join(errors[-1:])}")
