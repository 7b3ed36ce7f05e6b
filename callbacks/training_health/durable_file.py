"""Replace a file so that whoever opens it, whenever the machine stops, finds the old content or the new one."""

import contextlib
import os
from pathlib import Path

TEMPORARY = ".part"  # suffix of files that are being written


def replace_durably(path: Path, content: bytes, keep_as: Path | None = None) -> None:
    """Write ``content`` to ``path``: temporary file in the same folder, fsync, rename, fsync of the folder.

    Args:
        path: File to write; its folder is made if need be.
        content: The whole new content.
        keep_as: Where the old content stays available. It is linked there before the rename, so that at no moment is
            there no complete file.

    Raises:
        OSError: The disk is full, the folder may not be written to, ...; ``path`` is as before.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for content in (b"old", b"new"):
    ...         replace_durably(Path(folder) / "file", content, keep_as=Path(folder) / "before")
    ...     {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    {'before': b'old', 'file': b'new'}
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep_as is not None and path.exists():
            _also_name(path, keep_as)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # some network file systems refuse to sync a folder; the data are synced
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_stale_temporaries(folder: Path) -> list[Path]:
    """Delete what writers that were killed left in ``folder``; return what was deleted."""
    removed = []
    for path in sorted(folder.glob(f".*{TEMPORARY}")):
        with contextlib.suppress(OSError):
            path.unlink()
            removed.append(path)
    return removed


def _also_name(path: Path, second: Path) -> None:
    """Make ``second`` a further name of the file at ``path``, replacing what had that name."""
    link = second.with_name(f".{second.name}.{os.getpid()}{TEMPORARY}")
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
    except OSError:  # a file system without hard links: for a moment there is the second name only
        os.replace(path, second)
    else:
        try:
            os.replace(link, second)
        except OSError:
            link.unlink(missing_ok=True)
            raise
