"""The metadata that a later event file of a run gives its tags: TensorBoard hands out the first file's alone."""

import functools
import json
import mmap
import struct
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event

from training_health.log_format import PLUGIN_NAME

FILES_KEPT = 1000
_OURS = PLUGIN_NAME.encode()

Described = dict[str, tuple[bytes, bool]]  # by tag: its metadata, and whether a fit's first epoch came with it


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


@functools.lru_cache(FILES_KEPT)
def _described(path: Path, size: int) -> Described:
    """What a file of that size says of each tag, up to the first damage."""
    found: Described = {}
    at = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while at + 12 <= min(size, len(data)):
            (length,) = struct.unpack_from("<Q", data, at)
            start, at = at + 12, at + 16 + length
            if at > len(data):
                break
            if data.find(_OURS, start, at - 4) < 0:
                continue
            try:
                for value in Event.FromString(data[start : at - 4]).summary.value:
                    plugin = value.metadata.plugin_data
                    if plugin.plugin_name == PLUGIN_NAME and plugin.content:
                        begins = value.tensor.tensor_content[:4] == bytes(4)  # 0 as float32; a text has no such bytes
                        found[value.tag] = plugin.content, begins or found.get(value.tag, (b"", False))[1]
            except Exception:  # of whatever kind: these bytes are no event of ours
                break
    return found


def _resumed(raw: bytes) -> bool:
    try:
        return b'"resumed"' in raw and json.loads(raw).get("resumed") is True
    except (ValueError, RecursionError, AttributeError):
        return False
