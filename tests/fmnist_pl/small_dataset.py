"""A data set of a few images in the format of the real one, and a server that offers it, well or badly."""

import contextlib
import gzip
import hashlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from fmnist_pl.dataset.files import DataFile, DatasetFiles

TRAIN_IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
TRAIN_LABELS = np.arange(20, dtype=np.uint8) % 10
TEST_IMAGES = np.random.default_rng(1).integers(0, 256, (10, 28, 28), dtype=np.uint8)
TEST_LABELS = np.arange(10, dtype=np.uint8)[::-1].copy()


def idx(array: np.ndarray) -> bytes:
    """The array in the IDX format: two zero bytes, the type of a byte, the shape, big-endian, and the values."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


CONTENTS = {
    "train-images-idx3-ubyte": idx(TRAIN_IMAGES),
    "train-labels-idx1-ubyte": idx(TRAIN_LABELS),
    "t10k-images-idx3-ubyte": idx(TEST_IMAGES),
    "t10k-labels-idx1-ubyte": idx(TEST_LABELS),
}
PACKED = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}


def describe(mirrors: tuple[str, ...] = (), caches: tuple[str, ...] = ()) -> DatasetFiles:
    """The small data set, to be had from ``mirrors`` and ``caches``."""
    files = [DataFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in CONTENTS.items()]
    return DatasetFiles((files[0], files[1], files[2], files[3]), caches, mirrors)


def write_raw(root: Path, files: dict[str, bytes] = PACKED) -> Path:
    """Put ``files`` into torchvision's layout under ``root``; returns the folder."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def files_in(root: Path) -> set[str]:
    """What torchvision's layout under ``root`` holds."""
    return {path.name for path in (root / "FashionMNIST" / "raw").iterdir()} - {".lock"}


class Mirror:
    """A server on 127.0.0.1 that counts the requests for each file."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: Counter[str] = Counter()


@contextlib.contextmanager
def serve(changes: dict[str, bytes] | None = None, cut: str = "", delay: float = 0.0) -> Iterator[Mirror]:
    """Serve the small data set.

    Args:
        changes: Other bodies for some of the files; an empty one is a 404.
        cut: The file of whose body only half is sent.
        delay: Seconds before each answer.
    """
    bodies, closing = {**PACKED, **(changes or {})}, threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            mirror.requests[name] += 1
            if closing.wait(delay):
                return
            body = bodies.get(name)
            if not body:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if name == cut else body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror = Mirror(f"http://127.0.0.1:{server.server_address[1]}/")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield mirror
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def refusing_url() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"
