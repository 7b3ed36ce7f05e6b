"""Replace a file so that whoever opens it, whenever the machine stops, finds the old content or the new one."""

import contextlib
import os
from pathlib import Path

TEMPORARY = ".part"  # suffix of files that are being written


def replace_durably(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``: temporary file in the same folder, fsync, rename, fsync of the folder.

    The same folder, because a rename is atomic within one file system only. The folder is made if need be.

    Raises:
        OSError: The disk is full, the folder may not be written to, ...; ``path`` is as before.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_durably(Path(folder) / "file", b"new")
    ...     (Path(folder) / "file").read_bytes()
    b'new'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder outlast a power cut, where the system can open and sync a folder."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_stale_temporaries(folder: Path) -> None:
    """Delete what writers that were killed left in ``folder``, if there is one."""
    for path in folder.glob(f".*{TEMPORARY}"):
        with contextlib.suppress(OSError):
            path.unlink()
