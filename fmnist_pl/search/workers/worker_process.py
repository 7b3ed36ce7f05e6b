"""A worker as the search sees it: a process that takes trials one after the other."""

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmnist_pl.child_process import end, ended_by
from fmnist_pl.compare.job import last_words
from fmnist_pl.search.workers.job import TrialJob, encode

_SECONDS_TO_END = 5.0


class WorkerProcess:
    """Starts a worker and talks to it.

    Args:
        command: Its command line; see `fmnist_pl.search.workers.worker`.
        log: Takes what it prints.
        environment: Of the process.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C is for the search, which ends its workers in order
            )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._unread = b""

    def fileno(self) -> int:
        """What becomes readable when it has something to say, or has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def send(self, message: TrialJob | Mapping[str, Any]) -> None:
        """Tell it something; one that has ended hears nothing."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(encode(message))
            self.process.stdin.flush()

    def messages(self) -> list[dict[str, Any]]:
        """What it said since the last time."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.fileno(), 65536):
                self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        return [json.loads(line) for line in lines]

    def has_ended(self) -> bool:
        """Whether the process is no more."""
        return self.process.poll() is not None

    def reason(self) -> str:
        """Why it ended."""
        status = self.process.returncode
        return ended_by(status) or last_words(self.log) or f"ended with status {status} and no message"

    def stop(self) -> None:
        """End it, whatever it does, and close what belongs to it."""
        end(self.process, _SECONDS_TO_END)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
