"""A data file known by the size and SHA-256 of its unpacked content: read it only if it is that one, install it safely.

A file that this package put in place has a receipt beside it. Only a file with a receipt may ever be replaced.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fmnist_pl.dataset.idx_format import REMEDY, DataFileError, describe, gunzip, read_content

_UNFINISHED = ".part"


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes:
        name: Its name unpacked; packed, ``.gz`` follows.
        size: Bytes of its unpacked content.
        sha256: Hexadecimal SHA-256 of its unpacked content.
    """

    name: str
    size: int
    sha256: str

    @property
    def packed_name(self) -> str:
        """The name under which it is offered, stored and downloaded."""
        return f"{self.name}.gz"

    @classmethod
    def of(cls, name: str, content: bytes) -> "DataFile":
        """The description of ``content``."""
        return cls(name, len(content), hashlib.sha256(content).hexdigest())


def read_verified(path: Path, file: DataFile, family: Iterable[DataFile] = (), remedy: str = REMEDY) -> bytes:
    """The unpacked content at ``path``, which is exactly ``file``.

    Args:
        path: File to read; packed if its name ends in ``.gz``.
        file: What it must hold.
        family: The data set's other files, so that swapped ones are called by name.
        remedy: The last sentence of an error.

    Raises:
        DataFileError: Anything else is there.
    """
    content = read_content(path, max(member.size for member in (file, *family)), remedy)
    problem = mismatch(content, file, family)
    if problem:
        raise DataFileError.of(path, *problem, remedy)
    return content


def check_download(packed: bytes, file: DataFile, family: Iterable[DataFile] = ()) -> None:
    """Raise ValueError, saying what is wrong, unless ``packed`` is the gzip of exactly ``file``."""
    problem = mismatch(gunzip(packed, max(member.size for member in (file, *family))), file, family)
    if problem:
        raise ValueError(f"expected {problem[0]}, received {problem[1]}")


def mismatch(content: bytes, file: DataFile, family: Iterable[DataFile] = ()) -> tuple[str, str] | None:
    """(expected, found) in words, or None where ``content`` is ``file``."""
    sha256 = hashlib.sha256(content).hexdigest()
    if len(content) == file.size and sha256 == file.sha256:
        return None
    for other in family:
        if sha256 == other.sha256 and other.name != file.name:
            return f"the content of {file.name}", f"the content of {other.name} (are files swapped?)"
    if len(content) != file.size:
        return f"{file.size:,} bytes", describe(content)
    return f"content with SHA-256 {file.sha256}", f"{len(content):,} bytes with SHA-256 {sha256}"


def receipt_path(path: Path) -> Path:
    """Where the receipt of the file at ``path`` lies."""
    return path.with_name(f"{path.name}.receipt")


def has_receipt(path: Path) -> bool:
    """Whether this package installed the file at ``path``, and so may replace it."""
    return receipt_path(path).is_file()


def install(path: Path, data: bytes, receipt: str) -> None:
    """Put ``data`` at ``path``, whole or not at all, and ``receipt`` beside it.

    Written to a temporary file in the same folder, flushed to the disk and renamed: whoever reads at any moment sees
    the old file or the new one, also after a power failure.

    Raises:
        OSError: The folder or the disk refused; nothing of ``data`` is left behind.
    """
    _write_durably(path, data)
    _write_durably(receipt_path(path), receipt.encode())


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes left of `install` at ``path``. Call it under the lock that guards ``path``."""
    for name in (path.name, receipt_path(path).name):
        for stale in path.parent.glob(f".{name}.*{_UNFINISHED}"):
            stale.unlink(missing_ok=True)


def _write_durably(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_UNFINISHED}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # also Ctrl-C
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some network file systems cannot; the file itself is safe
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
