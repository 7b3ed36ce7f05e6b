"""Ctrl-C and SIGTERM end the process at once: what a run needs to resume was saved when its last epoch ended."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(SystemExit):
    """Ends the process with the status that shells give to its signal: 130 after Ctrl-C, 143 after SIGTERM.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        # A rank that Lightning launched ends as if all were well: a failed one makes Lightning kill the first rank.
        super().__init__(128 + number if os.environ.get("LOCAL_RANK", "0") == "0" else 0)
        self.reason = _NAMES[signal.Signals(number)]


@contextlib.contextmanager
def stop_at_once() -> Iterator[None]:
    """Raise `Stopped` for both signals within the block; no effect outside the main thread, which gets no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in _NAMES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def replace_lightnings_handler() -> None:
    """Put ours back, within `stop_at_once`: Lightning's handler of SIGTERM talks to the other ranks, which may hang."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)
