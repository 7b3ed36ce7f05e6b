"""A data set of a few images in the format of the real one, and servers that offer it, well or badly."""

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from fmnist_pl.dataset.files import DatasetFiles
from fmnist_pl.dataset.idx_format import encode, pack
from fmnist_pl.dataset.verified_file import DataFile

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
TRAIN_IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
TRAIN_LABELS = np.arange(20, dtype=np.uint8) % 10
TEST_IMAGES = np.random.default_rng(1).integers(0, 256, (10, 28, 28), dtype=np.uint8)
TEST_LABELS = np.arange(10, dtype=np.uint8)[::-1].copy()
CONTENTS = {
    name: encode(array)
    for name, array in zip(NAMES, (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS), strict=True)
}
PACKED = {f"{name}.gz": pack(content) for name, content in CONTENTS.items()}


def describe(mirrors: tuple[str, ...] = (), patience: float = 5.0) -> DatasetFiles:
    """The small data set, to be had from ``mirrors``."""
    files = [DataFile.of(name, content) for name, content in CONTENTS.items()]
    return DatasetFiles((files[0], files[1]), (files[2], files[3]), mirrors, patience)


def write_raw(root: Path, files: dict[str, bytes] = PACKED) -> Path:
    """Put ``files`` into torchvision's layout under ``root``; returns the folder."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


class Mirror:
    """A server on 127.0.0.1 that counts the requests for each file.

    Attributes:
        answers: Per file name, the raw bodies to send in turn, the last one again and again; a name that is not in it
            gets a 404. None in place of a body cuts the right body in half.
    """

    def __init__(self, server: ThreadingHTTPServer, answers: dict[str, list[bytes | None]]) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}/"
        self.requests: Counter[str] = Counter()
        self.answers = answers


@contextlib.contextmanager
def serve(changes: dict[str, list[bytes | None]] | None = None, delay: float = 0.0) -> Iterator[Mirror]:
    """Serve the small data set, with ``changes`` to some of its files, each answer after ``delay`` seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            mirror.requests[name] += 1
            bodies = mirror.answers.get(name)
            threading.Event().wait(delay)
            if not bodies:
                self.send_error(404)
                return
            body = bodies[min(mirror.requests[name], len(bodies)) - 1]
            whole = PACKED[name] if body is None else body
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2] if body is None else whole)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror = Mirror(server, {**{name: [body] for name, body in PACKED.items()}, **(changes or {})})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def serve_bytes(*sent: bytes, pause: float = 0.0, then_close: bool = False) -> Iterator[str]:
    """A server that sends ``sent`` to whoever connects, ``pause`` seconds before each, whatever is asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()
    open_sockets: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.recv(65536)  # unread data would turn the close into a reset
            for piece in sent:
                stop.wait(pause)
                connection.sendall(piece)
            if then_close:
                connection.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                connection, _ = listener.accept()
                open_sockets.append(connection)
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        stop.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in open_sockets:
            connection.close()


def refusing_url() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"
