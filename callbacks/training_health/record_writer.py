"""Write event files as TensorBoard does, to the byte, with their checksums by NumPy.

TensorBoard computes them in Python, byte by byte, which takes some 0.2 ms for a kilobyte.
"""

import struct
from functools import cache, partial
from typing import IO, Any

import numpy as np

_POLYNOMIAL = 0x82F63B78  # Castagnoli's, bits reversed
_BLOCK, _BLOCKS = 1024, 64  # bytes, and how many blocks are looked up at once


@cache
def _table() -> np.ndarray:
    """What each value of each byte of a block adds to the checksum: (_BLOCK, 256)."""
    last = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        last = np.where(last & 1, (last >> 1) ^ _POLYNOMIAL, last >> 1)
    rows = [last]
    for _ in range(_BLOCK - 1):  # with one more byte behind it
        rows.append(last[rows[-1] & 0xFF] ^ (rows[-1] >> 8))
    return np.stack(rows[::-1])


def crc32c(data: bytes) -> int:
    """Give the CRC-32C of at least four bytes.

    The checksum is linear: a block's is the exclusive or of what each byte adds, and that of all bytes before it adds
    what it would as the block's first four bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    bits = np.frombuffer(data, np.uint8).copy()
    bits[:4] ^= 0xFF  # the checksum of nothing has all bits set
    blocks = np.pad(bits, (-len(bits) % _BLOCK, 0)).reshape(-1, _BLOCK)  # zeros in front add nothing
    table, places, crc = _table(), np.arange(_BLOCK), 0
    firsts = table[:4].tolist()
    for start in range(0, len(blocks), _BLOCKS):
        some = blocks[start : start + _BLOCKS]
        for added in np.bitwise_xor.reduce(table[places, some], axis=1).tolist():
            for row in firsts:
                added, crc = added ^ row[crc & 0xFF], crc >> 8
            crc = added
    return crc ^ 0xFFFFFFFF


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
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    if len(data) < _BLOCK // 4:  # where the call takes longer
        return struct.pack("<I", masked_crc32c(data))
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
