"""Write event files as TensorBoard does, to the byte, with their checksums by a library in C.

TensorBoard computes them in Python, byte by byte, which takes some 0.1 ms for a kilobyte.
"""

import struct
from functools import partial
from typing import IO, Any

import google_crc32c


def write_record(file: IO[bytes], data: bytes) -> None:
    """Write one serialised event to an event file."""
    length = struct.pack("<Q", len(data))
    file.write(length + _masked(length) + data + _masked(data))


def hasten(file_writer: Any) -> None:  # noqa: ANN401 - a `FileWriter` of any version
    """Have the file writer behind a ``SummaryWriter`` write by `write_record`; one that is built otherwise stays."""
    from tensorboard.summary.writer import record_writer

    records: Any = getattr(getattr(getattr(file_writer, "event_writer", None), "_async_writer", None), "_writer", None)
    is_stock = type(records) is record_writer.RecordWriter and set(vars(records)) == {"_writer"}
    if is_stock and records.write.__module__ == record_writer.__name__:
        records.write = partial(write_record, records._writer)


def _masked(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
