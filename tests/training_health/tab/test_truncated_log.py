"""A run killed while it wrote leaves a file cut anywhere: what was whole before the cut is shown, without an error."""

import pytest

from tests.training_health.tab.health_log_writer import HealthLogWriter

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
