"""A run killed while it wrote leaves a file cut anywhere: what was whole before the cut is shown, without an error."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.util import tensor_util

from tests.training_health.tab.health_log_writer import HealthLogWriter
from training_health.health.findings import find_all
from training_health.health.health_run import HealthRun, read_run
from training_health.tab.payloads import overview_row, run_payload

EPOCHS = 6
TAIL = 4096


@pytest.fixture
def log_file(tmp_path):
    with HealthLogWriter(tmp_path / "whole") as log:
        log.text("run", {"variant": "baseline", "max_epochs": EPOCHS})
        for epoch in range(EPOCHS):
            log.activity(epoch, "conv1", 0, [0.5, 0.0, 0.1 * epoch])
            log.activity(epoch, "fc1", 1, [0.5, 1.0])
            log.gap(epoch, val_accuracy=0.5 + epoch / 100, accuracy_gap=0.01, accuracy_gap_se=0.01)
            log.parameters("update_ratio", epoch, {"w": 1e-3})
        log.text("result", {"status": "finished"}, step=1000)
    (path,) = (tmp_path / "whole").iterdir()
    return path


def run_of(events) -> HealthRun:
    contents, data = {}, {}
    for event in events:
        for value in event.summary.value:
            contents.setdefault(value.tag, value.metadata.plugin_data.content)
            record = SimpleNamespace(step=event.step, numpy=tensor_util.make_ndarray(value.tensor))
            data.setdefault(value.tag, []).append(record)
    return read_run("a", contents, data)


def epochs_of(run: HealthRun) -> dict[str, list[int]]:
    parts = {site.name: site.epochs for site in run.sites} | {"gap": run.gap and run.gap.epochs}
    return {name: [] if epochs is None else epochs.tolist() for name, epochs in parts.items()}


def test_each_cut_in_the_tail_leaves_a_prefix(log_file):
    size = log_file.stat().st_size
    assert size > TAIL
    whole = list(LegacyEventFileLoader(str(log_file)).Load())
    seen = set()
    for cut in range(1, TAIL + 1):
        with log_file.open("r+b") as file:  # ever shorter, so one file serves all the cuts
            file.truncate(size - cut)
        events = list(LegacyEventFileLoader(str(log_file)).Load())
        assert events == whole[: len(events)], cut
        seen.add(len(events))
    assert len(seen) > 10  # the tail does span many records
    for count in seen:
        run = run_of(whole[:count])
        assert not run.problems
        assert not run.refused
        for name, epochs in epochs_of(run).items():
            assert epochs == list(range(len(epochs))), (count, name)
        row = overview_row(run, find_all(run), "", {})
        payload = run_payload(run)
        if payload["total"]:
            assert payload["total"]["epochs"] == list(range(len(payload["total"]["epochs"])))
            assert row["dead"] == (payload["total"]["dead"] or [None])[-1]


@pytest.mark.parametrize("cut", [1, 7, 12, 100, 777, 2048, 4096])
def test_a_cut_file_is_served_through_tensorboard(log_file, tmp_path, open_tab, cut):
    folder = tmp_path / "cut"
    folder.mkdir()
    shutil.copy(log_file, folder)
    (copy,) = folder.iterdir()
    with copy.open("r+b") as file:
        file.truncate(copy.stat().st_size - cut)
    tab = open_tab()
    row = tab.row("cut")
    assert row["state"] == "ok"
    assert row["message"] == ""
    assert not row["finished"]
    assert 0 < row["epochs"] <= EPOCHS
    assert np.isfinite(row["dead_share"])


def test_an_empty_event_file_is_a_run_without_monitors(tmp_path, open_tab):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "events.out.tfevents.1").touch()
    with HealthLogWriter(tmp_path / "other") as log:
        log.activity(0, "fc1", 0, [1.0])
    states = {row["run"]: row["state"] for row in open_tab().json("/overview")["runs"]}
    assert states == {"empty": "no_monitors", "other": "ok"}
