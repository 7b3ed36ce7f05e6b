import json
import re
from pathlib import Path

import pytest

from tests.training_health.tab.health_log_writer import HealthLogWriter
from training_health.errors import UserError
from training_health.tab import report

HOSTILE = "</script><script>alert(1)"


@pytest.fixture
def logdir(tmp_path) -> Path:
    with HealthLogWriter(tmp_path / "logs" / "a") as log:
        log.text("run", {"variant": HOSTILE, "max_epochs": 2})
        log.activity(0, "fc1", 0, [0.0, 0.5])
    with HealthLogWriter(tmp_path / "logs" / "foreign") as log:
        log.scalar("val/accuracy", 1, 0.5)
    return tmp_path / "logs"


@pytest.fixture
def page(logdir, tmp_path) -> str:
    report.write_report(logdir, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def data_in(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="training-health-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_the_data_inside_is_what_the_tab_would_show(page):
    data = data_in(page)
    assert [row["run"] for row in data["overview"]["runs"]] == ["a", "foreign"]
    assert data["runs"]["a"]["total"]["dead"] == [1]
    assert data["units"]["a"]["fc1"]["activity"] == [[0.0], [0.5]]
    assert list(data["runs"]) == ["a"]


def test_text_from_a_log_can_not_end_the_script_it_is_in(page):
    assert data_in(page)["overview"]["runs"][0]["variant"] == HOSTILE
    assert HOSTILE not in page
    assert page.count("</script>") == 4  # import map, data, plotly, the call


def test_the_page_may_fetch_nothing(page):
    assert "default-src 'none'" in page
    assert not re.search(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="(?!data:)', page)


def test_the_same_logs_make_the_same_file(logdir, tmp_path, page):
    report.write_report(logdir, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_an_old_report_is_replaced_and_nothing_left_beside_it(logdir, tmp_path):
    output = tmp_path / "report.html"
    output.write_text("old")
    report.write_report(logdir, output)
    assert output.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "report.html"]


def test_a_failed_write_leaves_the_old_report(logdir, tmp_path, monkeypatch):
    output = tmp_path / "report.html"
    output.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report.os, "fsync", full)
    with pytest.raises(UserError, match="can't be written: No space left on device"):
        report.write_report(logdir, output)
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "report.html"]


def test_a_missing_log_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no folder .*nowhere"):
        report.write_report(tmp_path / "nowhere", tmp_path / "report.html")


def test_an_empty_log_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="There are no TensorBoard event files below"):
        report.write_report(tmp_path, tmp_path / "report.html")


def test_runs_without_monitors_are_refused_with_what_to_do(tmp_path):
    with HealthLogWriter(tmp_path / "foreign") as log:
        log.scalar("val/accuracy", 1, 0.5)
    with pytest.raises(UserError, match=r"None of the 1 runs .* Train with the callbacks DeadReLUMonitor"):
        report.write_report(tmp_path, tmp_path / "report.html")


def test_a_folder_as_output_is_refused(logdir, tmp_path):
    with pytest.raises(UserError, match=r"is a folder\. Give a file name"):
        report.write_report(logdir, tmp_path)


def test_an_output_in_a_missing_folder_is_refused(logdir, tmp_path):
    with pytest.raises(UserError, match=r"There is no folder .*missing to write report.html into"):
        report.write_report(logdir, tmp_path / "missing" / "report.html")
