"""Ctrl-C and SIGTERM: while training, finish the batch, save and stop; at other times stop at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(SystemExit):
    """Ends the process with the status that shells give to its signal: 130 after Ctrl-C, 143 after SIGTERM."""

    def __init__(self, number: int, status: int | None = None) -> None:
        super().__init__(128 + number if status is None else status)
        self.reason = _NAMES.get(signal.Signals(number), signal.Signals(number).name)


class StopRequest:
    """What the process was asked to do, and whether it can be done in order.

    Attributes:
        number: The signal that arrived while stopping was deferred; None if none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._listening = False
        self._deferred = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle both signals within the block; does nothing outside the main thread, which gets no signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self._listening, self.number = True, None
        self._install()
        try:
            yield
        finally:
            self._listening, self._deferred, self.number = False, False, None
            for number, handler in before.items():
                signal.signal(number, handler)

    def defer(self) -> None:
        """From now on only note the first signal: the training looks at `number` after each batch."""
        if self._listening:
            self._deferred = True
            self._install()  # Lightning has put its own handler in front, which stops without saving

    def act(self) -> None:
        """From now on a signal ends the process at once."""
        self._deferred = False

    def _install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._deferred and self.number is None:
            self.number = number
            # os.write, because print() may be interrupted in the middle of itself.
            hint = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
            os.write(2, f"\nStopping after this batch, with a checkpoint{hint}.\n".encode())
            return
        raise Stopped(number)


STOP_REQUEST = StopRequest()
