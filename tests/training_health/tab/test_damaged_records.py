"""Logs whose records were changed at random, checksums and all: other runs are shown, and the report is written.

Every run is a copy of a good one in which one record is changed; its neighbour is whole. Two thousand runs.
"""

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from tests.browser.known_log import DYING_FC1, write_epoch, write_examples
from tests.training_health.tab.health_log_writer import HealthLogWriter
from training_health.tab.health_data import UNEXPECTED
from training_health.tab.one_file import write_report

pytestmark = pytest.mark.slow

RUNS = 250  # in one folder: an overview holds 300
NASTY = [None, True, -1, 0, 2, 10**18, 10**400, 1.5, float("nan"), float("inf"), 2**31, 2**63, 1e308]
NASTY += ["", "\ud800", "<b>", "__proto__", "\x00", "x" * 10_000, [], ["w"], [[1]], {}, {"a": 1}]
NUMBERS = [float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 2.0, 3e9, 1e30]
SIZES = [-1, 0, 1, 2, 5, 2**31, 2**62]


@pytest.fixture
def records(tmp_path) -> list[bytes]:
    """The events of a good run, which stays in the folder."""
    with HealthLogWriter(tmp_path / "logs" / "good") as log:
        advice = {"advice": {"dropout": "x"}, "limits": {"dead_units": 0.4}}
        log.text("run", {"variant": "b", "seed": 1, "max_epochs": 3, "optimizer": "SGD", "learning_rate": 0.1} | advice)
        for epoch, fc1 in enumerate(DYING_FC1):
            write_epoch(log, epoch, fc1)
        write_examples(log)
        log.text("result", {"status": "finished", "test_accuracy": 0.8}, step=1000)
        log.scalar("val/accuracy", 5, 0.5)
    (path,) = (tmp_path / "logs" / "good").iterdir()
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        found.append(data[12 : 12 + length])
        data = data[16 + length :]
    return found


def write_changed(logdir: Path, records: list[bytes], change, rng: random.Random) -> None:
    for run in range(RUNS):
        at = rng.randrange(1, len(records))  # the first is the file's version
        changed = [change(record, rng) if i == at else record for i, record in enumerate(records)]
        folder = logdir / f"changed_{run}"
        folder.mkdir()
        with (folder / "events.out.tfevents.1700000000.x").open("wb") as file:
            for record in changed:
                length = struct.pack("<Q", len(record))
                file.write(length + struct.pack("<I", masked_crc32c(length)) + record)
                file.write(struct.pack("<I", masked_crc32c(record)))


def changed_json(value, rng: random.Random):
    """``value`` with one thing in it replaced, removed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        fate = rng.random()
        if fate < 0.15:
            return {name: kept for name, kept in value.items() if name != key}
        if fate < 0.3:
            return value | {rng.choice(["site", "units", "index", "kind", "version", "new"]): rng.choice(NASTY)}
        return value | {key: changed_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [changed_json(item, rng) if i == at else item for i, item in enumerate(value)]
    return rng.choice(NASTY)


def changed_field(record: bytes, rng: random.Random) -> bytes:
    """The event with one field changed: it is still an event."""
    event = Event.FromString(record)
    (value,) = event.summary.value
    tensor, metadata = value.tensor, value.metadata
    match rng.randrange(9):
        case 0 | 1:
            content = changed_json(json.loads(metadata.plugin_data.content or b"{}"), rng)
            metadata.plugin_data.content = json.dumps(content).encode()
        case 2:
            event.step = rng.choice([-1, 0, 99, 2**62, -(2**63), 2**63 - 1])
        case 3:
            event.wall_time = rng.choice(NUMBERS)
        case 4:
            tensor.dtype = rng.choice([0, 1, 2, 3, 7, 9, 10, 14, 20, 23, 99, 101])
        case 5:
            # of a text TensorBoard makes as many copies as its shape says: gigabytes, which no plugin can prevent
            sizes = SIZES[:5] if tensor.string_val else SIZES
            tensor.tensor_shape.dim.add(size=rng.choice(sizes))
            tensor.tensor_shape.dim[0].size = rng.choice(sizes)
        case 6:
            numbers = np.array(rng.choices(NUMBERS, k=len(tensor.tensor_content) // 4), "<f4").tobytes()
            tensor.tensor_content = rng.choice([b"", b"\0", tensor.tensor_content[:-1], numbers, numbers, numbers])
        case 7 if tensor.string_val:
            text = json.dumps(changed_json(json.loads(tensor.string_val[0]), rng)).encode()
            tensor.string_val[0] = rng.choice([text, text, text, b"\xff"])
        case _:
            value.tag = rng.choice(["", "x", "\0", "training_health/gap", "training_health/activity/fc1", "a" * 5000])
    return event.SerializeToString()


def changed_bytes(record: bytes, rng: random.Random) -> bytes:
    """The event with some bytes changed, removed or added: mostly no event any more."""
    data = bytearray(record)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data) - 8)
        data[at : at + rng.choice([0, 1, 1, 1, 8])] = rng.randbytes(rng.choice([0, 1, 1, 1, 8]))
    return bytes(data)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_a_field_holds_all_other_runs_are_shown(seed, tmp_path, records, open_tab):
    write_changed(tmp_path / "logs", records, changed_field, random.Random(seed))
    tab = open_tab(tmp_path / "logs")
    rows = {row["run"]: row for row in tab.json("/overview")["runs"]}
    assert (rows["good"]["epochs"], rows["good"]["dead"], len(rows)) == (3, 2, RUNS + 1)
    assert [row["run"] for row in rows.values() if UNEXPECTED in row["message"]] == []
    for run in (name for name, row in rows.items() if row["state"] == "ok"):
        for site in tab.json("/run", run=run)["sites"]:
            tab.json("/units", run=run, site=site["site"])
    write_report(tmp_path / "logs", tmp_path / "report.html")


@pytest.mark.parametrize("seed", range(3))
def test_whatever_a_file_holds_the_report_is_written(seed, tmp_path, records):
    write_changed(tmp_path / "logs", records, changed_bytes, random.Random(seed))
    write_report(tmp_path / "logs", tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "what follows the damage is missing" in text
    assert UNEXPECTED not in text
