"""One process at a time in a folder that several may want to fill."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from training_health.errors import UserError

LONGEST_WAIT = 1800.0  # seconds; a download at the slowest accepted speed needs longer, one that works does not


@contextlib.contextmanager
def folder_lock(folder: Path, task: str) -> Iterator[None]:
    """Create ``folder`` if need be and hold its lock; the system frees it when the process dies.

    Args:
        folder: Folder to be filled.
        task: What the other process is doing, for the line that says why this one waits.

    Raises:
        OSError: The folder cannot be created or written to.
        UserError: Another process held the lock for half an hour.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Waiting: another process is {task} {folder}", file=sys.stderr, flush=True)
        try:
            lock.acquire(timeout=LONGEST_WAIT)
        except Timeout:
            message = f"{folder}: another process has been {task} it for {LONGEST_WAIT / 60:g} minutes. Stop that one."
            raise UserError(message) from None
    try:
        yield
    finally:
        lock.release()
