"""One training as a process of its own, watched through its output."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from fmnist_pl.child_process import end, ended_by
from fmnist_pl.compare.locked_log import LockedLog
from fmnist_pl.compare.wanted_run import WantedRun

_EPOCH = re.compile(rb"^epoch (\d+)/\d+ .* ([0-9.]+) s\s*$", re.MULTILINE)
_STOPPED = 30.0  # seconds that a run has to end itself when it is told to
_LITTLE_SPACE = 1 << 20


class Job:
    """Starts a command with its output in a log, and watches it.

    Args:
        run: What is trained.
        command: The command line that trains it.
        log: Takes the output. The process inherits its lock; this object closes it.
        environment: Of the process.
        resumed: Whether the command goes on with a run that was interrupted.

    Raises:
        OSError: If the process cannot be created.
    """

    def __init__(
        self,
        run: WantedRun,
        command: Sequence[str],
        log: LockedLog,
        environment: Mapping[str, str],
        *,
        resumed: bool = False,
    ) -> None:
        self.run, self.log, self.resumed = run, log, resumed
        self.epochs_done = 0
        self.epoch_seconds: list[float] = []  # of whole epochs: a resumed run begins in the middle of one
        self._in_part = resumed
        self._read_to = 0
        log.file.truncate(0)
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log.file, stderr=subprocess.STDOUT, env=dict(environment)
        )

    def poll(self) -> bool:
        """Note the epochs that ended; whether the process has ended."""
        ended = self.process.poll() is not None  # asked first, so that nothing it wrote is missed
        with contextlib.suppress(OSError), self.log.path.open("rb") as file:
            file.seek(self._read_to)
            new = file.read()
            complete = new[: new.rfind(b"\n") + 1]
            self._read_to += len(complete)
            for number, seconds in _EPOCH.findall(complete):
                self.epochs_done = int(number)
                if not self._in_part:
                    self.epoch_seconds.append(float(seconds))
                self._in_part = False
        return ended

    def failure(self) -> str | None:
        """Why the ended process failed, or None if it did not."""
        status = self.process.returncode
        if status == 0:
            return None
        reason = ended_by(status) or last_words(self.log.path)
        free = _free_bytes(self.log.path.parent)
        if free is not None and free < _LITTLE_SPACE and "No space left" not in reason:
            reason = f"{reason} (the disk of {self.log.path.parent} is full)".strip()
        return reason or f"ended with status {status} and no message"

    def stop(self) -> None:
        """End the process if it still runs."""
        end(self.process, _STOPPED)

    def close(self) -> None:
        """Close the log and with it the lock."""
        self.log.close()


def last_words(log: Path) -> str:
    """The message that a failed run ended with: its ``error:`` line, else the exception, else the last line."""
    try:
        lines = [line.strip() for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    exceptions = [line for line in lines if re.match(r"^(\w+\.)*\w*(Error|Exception|Interrupt)\b", line)]
    return (errors or exceptions or lines or [""])[-1][:300]


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(os.fspath(folder)).free
    except OSError:
        return None
