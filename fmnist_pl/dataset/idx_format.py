"""The IDX format of the MNIST family: read strictly, written reproducibly.

An IDX file is a big-endian header (two zero bytes, the element type 0x08 for uint8, the number of dimensions, each
dimension as uint32) and then the bytes of the array, nothing more. A name that ends in ``.gz`` holds a gzip of that.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from training_health.errors import UserError

LABELS = 10
SIDE = 28
REMEDY = "Replace it with an intact copy."
LARGEST_CONTENT = 1 << 30  # a gzip of kilobytes can unpack to gigabytes: refuse before memory runs out
_GZIP_OVERHEAD = 1 << 16  # gzip's header and stored blocks: an incompressible file grows by far less


class DataFileError(UserError):
    """A data file that must not be used: which, what was expected, what was found, what to do."""

    @classmethod
    def of(cls, path: Path, expected: str, found: str, remedy: str = REMEDY) -> "DataFileError":
        """The error in its one wording."""
        return cls(f"{path} is not usable: expected {expected}, found {found}. {remedy}")


def describe(content: bytes) -> str:
    """What ``content`` looks like, in words: the usual mix-ups by name, else its first bytes."""
    if not content:
        return "an empty file"
    if content.startswith(b"\x1f\x8b"):
        return "gzip data (a packed file must be named .gz)"
    if content.lstrip()[:1] == b"<":
        return "a web page (was it saved from a log-in or error page?)"
    if content.startswith(b"\x00\x00\x08\x01"):
        return f"an IDX file of labels, {len(content):,} bytes"
    if content.startswith(b"\x00\x00\x08\x03"):
        return f"an IDX file of images, {len(content):,} bytes"
    return f"{len(content):,} bytes that begin with {content[:4].hex(' ')}"


def gunzip(packed: bytes, largest: int) -> bytes:
    """Unpack one complete gzip member.

    Args:
        packed: The gzip stream, with nothing before or after.
        largest: Most bytes it may unpack to.

    Raises:
        ValueError: Not gzip, cut short, its checksum wrong, too large, or followed by other bytes; the text says which.
    """
    if not packed.startswith(b"\x1f\x8b"):
        raise ValueError(describe(packed))
    unpacker = zlib.decompressobj(wbits=31)  # 31 = gzip only
    try:
        content = unpacker.decompress(packed, largest + 1)
    except zlib.error as error:
        raise ValueError(f"a damaged gzip stream ({str(error).rpartition(': ')[2]})") from None
    if len(content) > largest:
        raise ValueError(f"a gzip stream that unpacks to more than {largest:,} bytes")
    if not unpacker.eof:
        raise ValueError("a gzip stream that is cut short")
    if unpacker.unused_data:
        raise ValueError(f"{len(unpacker.unused_data):,} bytes after the end of the gzip stream")
    return content


def read_content(path: Path, largest: int = LARGEST_CONTENT, remedy: str = REMEDY) -> bytes:
    """The bytes of an IDX file, unpacked in memory where the name ends in ``.gz``. Nothing is written.

    Args:
        path: File to read.
        largest: Most bytes of (unpacked) content; a larger file is refused unread.
        remedy: The last sentence of an error.

    Raises:
        DataFileError: Not a regular file, not readable, too large, or not one intact gzip stream.
    """
    packed = path.suffix == ".gz"
    try:
        if not path.is_file():  # a pipe would block for ever, a device never end
            raise DataFileError.of(path, "a regular file", "a folder or a special file", remedy)
        size = path.stat().st_size
        if size > largest + _GZIP_OVERHEAD * packed:
            raise DataFileError.of(path, f"at most {largest:,} bytes", f"{size:,} bytes", remedy)
        content = path.read_bytes()
    except OSError as error:
        raise DataFileError.of(path, "a readable file", error.strerror or repr(error), remedy) from error
    if not packed:
        return content
    try:
        return gunzip(content, largest)
    except ValueError as error:
        raise DataFileError.of(path, f"one gzip stream of at most {largest:,} bytes", str(error), remedy) from None


def decode(content: bytes, path: Path, dimensions: int, remedy: str = REMEDY) -> np.ndarray:
    """The uint8 array of an IDX file, with ``dimensions`` dimensions. ``path`` is named in errors.

    Raises:
        DataFileError: Another type or number of dimensions, no element, or too few or too many bytes.
    """
    magic = bytes([0, 0, 8, dimensions])
    header = 4 + 4 * dimensions
    if content[:4] != magic or len(content) < header:
        expected = f"an IDX header of {header} bytes that begins with {magic.hex(' ')} (uint8, {dimensions}-D)"
        raise DataFileError.of(path, expected, describe(content), remedy)
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) != header + math.prod(shape):
        expected = f"{header + math.prod(shape):,} bytes for the shape {shape} in its header"
        raise DataFileError.of(path, expected, f"{len(content):,} bytes", remedy)
    if math.prod(shape) == 0:
        raise DataFileError.of(path, "at least one element", f"the shape {shape}", remedy)
    # copied: an array over bytes is read-only, and torch warns when it shares one
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def decode_images(content: bytes, path: Path, remedy: str = REMEDY) -> np.ndarray:
    """Images (N, 28, 28) uint8; any other size is a DataFileError."""
    images = decode(content, path, dimensions=3, remedy=remedy)
    if images.shape[1:] != (SIDE, SIDE):
        found = f"images of {images.shape[1]}x{images.shape[2]} pixels"
        raise DataFileError.of(path, f"images of {SIDE}x{SIDE} pixels", found, remedy)
    return images


def decode_labels(content: bytes, path: Path, remedy: str = REMEDY) -> np.ndarray:
    """Labels (N,) uint8 in 0..9; any other value is a DataFileError."""
    labels = decode(content, path, dimensions=1, remedy=remedy)
    if labels.max() >= LABELS:
        first = int(np.argmax(labels >= LABELS))
        found = f"label {labels[first]} at position {first}"
        raise DataFileError.of(path, f"labels from 0 to {LABELS - 1}", found, remedy)
    return labels


def check_pair(images: np.ndarray, labels: np.ndarray, path: Path, remedy: str = REMEDY) -> None:
    """Refuse the labels at ``path`` unless there is exactly one for each image."""
    if len(images) != len(labels):
        raise DataFileError.of(path, f"{len(images):,} labels, one per image", f"{len(labels):,} labels", remedy)


def encode(array: np.ndarray) -> bytes:
    """The IDX file of a uint8 array: images (N, H, W) or labels (N,)."""
    if array.dtype != np.uint8:
        raise ValueError(f"IDX files of this family hold uint8, got {array.dtype}")
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def pack(content: bytes) -> bytes:
    """Gzip that depends on ``content`` alone: no time stamp, no name. Level 1, for speed."""
    return gzip.compress(content, compresslevel=1, mtime=0)
