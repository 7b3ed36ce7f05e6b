"""One file over HTTP, in bounded time and memory."""

import sys
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException, IncompleteRead
from types import TracebackType

PATIENCE = 15.0  # seconds; a silent mirror is given up after these
SLOWEST = 1024  # bytes per second below which a mirror counts as silent
_CHUNK = 1 << 16
_POLL = 0.05


class DownloadError(Exception):
    """Why a mirror did not give a file.

    Attributes:
        damaged: The transfer itself went wrong, so that asking once more may help.
    """

    def __init__(self, reason: str, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged


def fetch(url: str, largest: int, patience: float = PATIENCE) -> bytes:
    """The body of ``url``, with a progress line on a terminal.

    A thread talks to the server while this one watches the clock: name look-up, connecting, headers that trickle in
    and a body that stalls are all bounded, which a socket's time-out alone does not do.

    Args:
        url: An http or https address.
        largest: Most bytes to accept.
        patience: Seconds in which at least ``patience * SLOWEST`` bytes must arrive, else the server counts as silent.

    Raises:
        DownloadError: Anything but a complete body; its text is the reason in a few words.
    """
    transfer = _Transfer(url, largest, patience)
    transfer.start()
    mark, marked_at = 0, time.monotonic()
    with _ProgressLine(url) as progress:
        while transfer.is_alive():
            transfer.join(_POLL)
            progress.show(transfer.received, transfer.expected)
            now = time.monotonic()
            if transfer.received - mark >= patience * SLOWEST:
                mark, marked_at = transfer.received, now
            elif now - marked_at > patience and transfer.is_alive():
                transfer.abandoned.set()
                silent = "no answer" if transfer.received == 0 else f"stalled after {transfer.received:,} bytes"
                raise DownloadError(f"{silent} within {patience:g} s")
    if transfer.error is not None:
        raise transfer.error
    return bytes(transfer.body)


class _Transfer(threading.Thread):
    """Receives a body into memory; never raises, keeps the error for the thread that waits."""

    def __init__(self, url: str, largest: int, patience: float) -> None:
        super().__init__(daemon=True, name=f"download {url}")  # daemon: a hanging look-up must not keep Python alive
        self.url, self.largest, self.patience = url, largest, patience
        self.body = bytearray()
        self.received = 0
        self.expected: int | None = None
        self.error: DownloadError | None = None
        self.abandoned = threading.Event()

    def run(self) -> None:
        try:
            self._receive()
        except DownloadError as error:
            self.error = error
        except urllib.error.HTTPError as error:
            self.error = DownloadError(f"HTTP {error.code} {error.reason}")
            error.close()
        except IncompleteRead as error:
            self.error = DownloadError(f"cut short after {self.received:,} bytes ({error!r})", damaged=True)
        except ConnectionResetError:
            self.error = DownloadError(f"connection reset after {self.received:,} bytes", damaged=True)
        except urllib.error.URLError as error:
            self.error = DownloadError(self._why_unreachable(error.reason))
        except HTTPException as error:
            self.error = DownloadError(f"not a valid HTTP answer ({type(error).__name__})")
        except TimeoutError:
            self.error = DownloadError(self._why_unreachable(TimeoutError()))
        except Exception as error:
            self.error = DownloadError(f"{type(error).__name__}: {error}")

    def _why_unreachable(self, reason: object) -> str:
        if isinstance(reason, TimeoutError):
            return f"no answer within {self.patience:g} s"
        return getattr(reason, "strerror", None) or str(reason)

    def _receive(self) -> None:
        request = urllib.request.Request(self.url, headers={"User-Agent": "fmnist_pl"})
        with urllib.request.urlopen(request, timeout=self.patience) as response:
            length = response.headers.get("Content-Length")
            self.expected = int(length) if length and length.isdecimal() else None
            while chunk := response.read1(_CHUNK):
                self.body += chunk
                self.received = len(self.body)
                if self.abandoned.is_set():
                    return
                if self.received > self.largest:
                    raise DownloadError(f"more than the {self.largest:,} bytes that the file can have")
        if self.expected is not None and self.received < self.expected:
            cut = f"cut short after {self.received:,} of {self.expected:,} bytes"
            raise DownloadError(cut, damaged=True)


class _ProgressLine:
    """Says what is being downloaded; on a terminal, also how far it is. Goes to stderr."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.live = sys.stderr.isatty()

    def __enter__(self) -> "_ProgressLine":
        print(f"Downloading {self.url}", end="" if self.live else "\n", file=sys.stderr, flush=True)
        return self

    def show(self, received: int, expected: int | None) -> None:
        if self.live:
            share = f" of {expected / 1e6:.1f}" if expected else ""
            print(f"\rDownloading {self.url}: {received / 1e6:.1f}{share} MB", end="", file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            print(file=sys.stderr)
