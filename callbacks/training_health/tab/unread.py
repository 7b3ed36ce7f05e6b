"""Whether TensorBoard has read event files to their end: behind damaged bytes it reads nothing, and does not say so."""

import functools
import mmap
import struct
import time
from collections import deque
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from training_health.log_format import PLUGIN_NAME

STILL_WRITTEN = 60.0  # seconds since its last change in which a file may not have been read yet
FILES_KEPT = 1000
LAST_RECORDS = 10_000  # of a file, in which the last of ours is looked for


def goes_on(folder: Path, newest: float) -> bool:
    """Whether an event file has records of ours that are newer than the ``newest`` that was read, or no records.

    It takes some milliseconds for a file of 600 kB, once per size. False where the folder is not on this machine.
    """
    try:
        files = [(path, path.stat()) for path in folder.glob("*tfevents*")]
        resting = [(path, stat.st_size) for path, stat in files if time.time() - stat.st_mtime > STILL_WRITTEN]
        return any(size > 0 and _goes_on(path, size, newest) for path, size in resting)
    except (OSError, ValueError):  # such as a name with a null byte
        return False


@functools.lru_cache(FILES_KEPT)
def _goes_on(path: Path, size: int, newest: float) -> bool:
    records: deque[tuple[int, int]] = deque(maxlen=LAST_RECORDS)
    at = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while at + 12 <= len(data):
            length, checksum = struct.unpack_from("<QI", data, at)  # of the length
            if at + 16 + length > len(data):
                if checksum != masked_crc32c(data[at : at + 8]):
                    return True
                break  # killed while it wrote
            records.append((at + 12, at + 12 + length))
            at += 16 + length
        for start, end in reversed(records):
            try:
                event = Event.FromString(data[start:end])
            except Exception:  # of whatever kind: these bytes are no event
                return True
            if any(value.metadata.plugin_data.plugin_name == PLUGIN_NAME for value in event.summary.value):
                return bool(event.wall_time > newest)
    return False
