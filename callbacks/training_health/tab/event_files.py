"""What a run's event files hold and TensorBoard does not hand out.

That is what lies behind damaged bytes, and a tag's metadata but for those in the first file.
"""

import functools
import json
import mmap
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from training_health.log_format import PLUGIN_NAME

STILL_WRITTEN = 60.0  # seconds since its last change in which a file may not have been read yet
FILES_KEPT = 1000
LAST_RECORDS = 10_000  # of a file, in which the last of ours is looked for
_OURS = PLUGIN_NAME.encode()

Described = dict[str, tuple[bytes, bool]]  # by tag: its metadata, and whether a fit's first epoch came with it


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


def later_metadata(folder: Path) -> tuple[dict[str, bytes], bool]:
    """Each tag's newest metadata, and whether a later file begins with epoch 1 again, in a fit that did not resume.

    Empty where there is one file only, or the folder is not on this machine.
    """
    try:
        files = [(path, path.stat().st_size) for path in sorted(folder.glob("*tfevents*"))]  # as TensorBoard reads them
        described = [_described(path, size) for path, size in files if size] if len(files) > 1 else []
    except (OSError, ValueError):  # such as a name with a null byte
        return {}, False
    newest: dict[str, bytes] = {}
    first: set[str] = set()
    again = False
    for file in described:
        begun = {tag for tag, (_, begins) in file.items() if begins}
        again |= any(tag in first and not _resumed(file[tag][0]) for tag in begun)
        first |= begun
        newest |= {tag: raw for tag, (raw, _) in file.items()}
    return newest, again


class _DamagedError(Exception):
    """A record's length does not agree with its checksum."""


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _places(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Where each whole record begins and ends; the last one may have been cut when its writer was killed."""
    at = 0
    while at + 12 <= len(data):
        length, checksum = struct.unpack_from("<QI", data, at)  # of the length
        if at + 16 + length > len(data):
            if checksum != masked_crc32c(data[at : at + 8]):
                raise _DamagedError
            return
        yield at + 12, at + 12 + length
        at += 16 + length


@functools.lru_cache(FILES_KEPT)
def _goes_on(path: Path, size: int, newest: float) -> bool:
    with _mapped(path) as data:
        try:
            records = deque(_places(data), maxlen=LAST_RECORDS)
        except _DamagedError:
            return True
        for start, end in reversed(records):
            try:
                event = Event.FromString(data[start:end])
            except Exception:  # of whatever kind: these bytes are no event
                return True
            if any(value.metadata.plugin_data.plugin_name == PLUGIN_NAME for value in event.summary.value):
                return bool(event.wall_time > newest)
    return False


@functools.lru_cache(FILES_KEPT)
def _described(path: Path, size: int) -> Described:
    """What a file of that size says of each tag, up to the first damage."""
    found: Described = {}
    with _mapped(path) as data:
        try:
            for start, end in _places(data):
                if data.find(_OURS, start, end) < 0:
                    continue
                for value in Event.FromString(data[start:end]).summary.value:
                    plugin = value.metadata.plugin_data
                    if plugin.plugin_name == PLUGIN_NAME and plugin.content:
                        begins = value.tensor.tensor_content[:4] == bytes(4)  # 0 as float32; a text has no such bytes
                        found[value.tag] = plugin.content, begins or found.get(value.tag, (b"", False))[1]
        except Exception:  # of whatever kind: these bytes are no event of ours
            return found
    return found


def _resumed(raw: bytes) -> bool:
    try:
        return b'"resumed"' in raw and json.loads(raw).get("resumed") is True
    except (ValueError, RecursionError, AttributeError):
        return False
