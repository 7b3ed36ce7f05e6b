"""The comparison's own progress: lines for what starts and ends, and between them a status that does not pile up."""

import sys
import time
from typing import TextIO

_QUIET_SECONDS = 60.0  # between two status lines where the output is not a terminal


class Display:
    """Prints to ``stream``, standard error by default: standard output is for the result."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream if stream is not None else sys.stderr
        self._terminal = self.stream.isatty()
        self._status_shown = ""
        self._status_at = time.monotonic()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._write(f"{self._clear()}{text}\n")
        self._status_shown = ""

    def status(self, text: str) -> None:
        """Show where things stand: on a terminal in place, elsewhere once a minute."""
        if self._terminal:
            if text != self._status_shown:
                self._write(f"{self._clear()}{text}")
                self._status_shown = text
        elif time.monotonic() - self._status_at >= _QUIET_SECONDS:
            self._status_at = time.monotonic()
            self._write(f"{text}\n")

    def close(self) -> None:
        """Take the status away."""
        self._write(self._clear())
        self._status_shown = ""

    def _clear(self) -> str:
        return "\r\x1b[K" if self._status_shown else ""

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
