"""A run's output file that is its lock as well."""

import fcntl
from pathlib import Path


class BusyError(Exception):
    """Another process is training this run."""


class LockedLog:
    """Opens ``path`` for appending and locks it; a process that inherits the file inherits the lock.

    Where a comparison is killed while a training goes on, the next comparison finds the lock taken, waits and uses
    the result, instead of training the same run twice. The system frees the lock when the last of them has ended.

    Args:
        path: Of the file; its folder is created.

    Raises:
        BusyError: If another process holds the lock.
        OSError: If the file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("ab")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.file.close()
            if isinstance(error, BlockingIOError):
                raise BusyError from None
            raise

    def close(self) -> None:
        """Let go of the lock, unless a process that inherited it still runs."""
        self.file.close()
