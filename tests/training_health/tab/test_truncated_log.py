"""A run killed while it wrote leaves a file cut anywhere: what was whole before the cut is shown, without an error."""

import os

import pytest

from tests.training_health.tab.health_log_writer import HealthLogWriter
from training_health.tab import health_data

EPOCHS = 6


@pytest.fixture
def log_file(tmp_path):
    with HealthLogWriter(tmp_path / "cut") as log:
        log.text("run", {"variant": "baseline", "max_epochs": EPOCHS})
        for epoch in range(EPOCHS):
            log.activity(epoch, "conv1", 0, [0.5, 0.0, 0.1 * epoch])
            log.activity(epoch, "fc1", 1, [0.5, 1.0])
            log.gap(epoch, val_accuracy=0.5 + epoch / 100, accuracy_gap=0.01, accuracy_gap_se=0.01)
            log.parameters("update_ratio", epoch, {"w": 1e-3})
        log.text("result", {"status": "finished"}, step=1000)
    (path,) = (tmp_path / "cut").iterdir()
    return path


def test_each_cut_leaves_whole_epochs(log_file, open_tab):
    content, seen = log_file.read_bytes(), set()
    for cut in range(1, 4096, 37):
        log_file.write_bytes(content[:-cut])
        tab = open_tab()
        row, run = tab.row("cut"), tab.json("/run", run="cut")
        assert (row["state"], row["message"], row["finished"]) == ("ok", "", False)
        for part in (run["total"], *run["sites"], run["gap"], run["update_ratio"]):
            assert part["epochs"] == list(range(len(part["epochs"])))
        assert row["dead"] == (run["total"]["dead"] or [None])[-1]
        seen.add(tuple(len(part["epochs"]) for part in (*run["sites"], run["gap"], run["update_ratio"])))
    assert len(seen) > 10  # the cuts do span many records


def test_an_empty_event_file_is_a_run_without_monitors(tmp_path, open_tab):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "events.out.tfevents.1").touch()
    assert [row["state"] for row in open_tab().json("/overview")["runs"]] == ["no_monitors"]


@pytest.mark.parametrize("damage", ["length", "checksum", "content"])
def test_what_lies_behind_damaged_bytes_is_said_to_be_unread(log_file, open_tab, monkeypatch, damage):
    monkeypatch.setattr(health_data, "TIME_TO_READ", 0.0)
    content, starts = bytearray(log_file.read_bytes()), [0]
    while starts[-1] < len(content):
        starts.append(starts[-1] + 16 + int.from_bytes(content[starts[-1] : starts[-1] + 8], "little"))
    start, end = starts[len(starts) // 2 : len(starts) // 2 + 2]
    first, last = {"length": (0, 2), "checksum": (end - start - 4, end - start), "content": (12, end - start - 4)}[
        damage
    ]
    content[start + first : start + last] = b"\xff" * (last - first)
    log_file.write_bytes(content)
    tab = open_tab()
    assert tab.row("cut")["epochs"] < EPOCHS
    assert tab.row("cut")["message"] == ""  # it may still be written
    os.utime(log_file, (0, 0))
    assert "bytes in it are damaged" in tab.row("cut")["message"]


def test_a_log_that_is_read_to_its_end_is_not_said_to_go_on(log_file, open_tab, monkeypatch):
    monkeypatch.setattr(health_data, "TIME_TO_READ", 0.0)
    content = log_file.read_bytes()
    for cut in (*range(1, 400, 7), 2000):  # killed while it wrote
        log_file.write_bytes(content[:-cut])
        os.utime(log_file, (0, 0))
        tab = open_tab()
        assert [tab.row("cut")["message"] for _ in range(2)] == ["", ""]
