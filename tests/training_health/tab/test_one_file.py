import base64
import html
import json
import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training_health.tab.health_log_writer import HealthLogWriter
from training_health.errors import UserError
from training_health.tab import one_file
from training_health.tab.self_contained_page import inline_script, packed, page

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
def written(logdir, tmp_path) -> str:
    one_file.write_report(logdir, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def data_in(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="training-health-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def test_the_data_inside_is_what_the_tab_would_show(written):
    data = data_in(written)
    assert [row["run"] for row in data["overview"]["runs"]] == ["a", "foreign"]
    assert list(data["run"]) == ["a"]
    assert json.loads(unpacked(data["run"]["a"]))["total"]["dead"] == [1]
    units, activity = data["units"]["a"]["fc1"]
    assert json.loads(unpacked(units))["order"] == [0, 1]
    assert list(unpacked(activity)) == [0, 1302 >> 8, 0, 1302 & 255]  # 0, and 500e-3: 2 + 900 + 500 - 100


@given(st.floats(0, 1, width=32))
def test_three_digits_of_an_activity_are_kept(activity):
    code = int(one_file.three_digits(np.array([activity]))[0])
    read = 0.0 if code == 0 else ((code - 2) % 900 + 100) / 10.0 ** (2 + (code - 2) // 900)
    assert read == pytest.approx(float(f"{activity:.2e}"), rel=1e-6, abs=0)


def test_what_is_not_a_number_has_a_code_of_its_own():
    assert one_file.three_digits(np.array([float("nan"), 0.0, 1.0, 1e-45])).tolist() == [1, 0, 2, 40502]


def test_two_runs_of_resnet_50s_size_fit_into_an_attachment(tmp_path):
    rng = np.random.default_rng(0)
    activity = rng.uniform(0, 1, size=(22_720, 20)) ** 3  # of 100 epochs one in five; as random as it can be
    codes = one_file.three_digits(activity.astype(np.float32))
    size = sum(len(packed(plane.astype(np.uint8).tobytes())) for plane in (codes >> 8, codes & 255))
    assert 2 * 5 * size + 1_000_000 < 12_000_000


def test_without_scripts_there_is_a_table_of_runs_and_of_findings(written):
    (plain,) = re.findall("<noscript>(.*?)</noscript>", written, re.DOTALL)
    cells = [html.unescape(cell) for cell in re.findall("<td>(.*?)</td>", plain)]
    assert cells[:4] == ["a", "Many units dead from the start", "1", "50.0% (1 of 2, n = 5,000)"]
    assert "drawn by JavaScript, which is switched off here" in plain
    assert "Warning when 40% of the network" in plain


def test_a_folder_whose_name_is_no_text_is_refused(logdir, tmp_path):
    with pytest.raises(UserError, match="is not UTF-8: rename it"):
        one_file.write_report(logdir.rename(tmp_path / "f\udcfcr"), tmp_path / "report.html")


def test_text_from_a_log_can_not_end_the_script_it_is_in(written):
    assert data_in(written)["overview"]["runs"][0]["variant"] == HOSTILE
    assert HOSTILE not in written
    assert written.count("</script>") == 4  # import map, data, the call, plotly


def test_the_page_may_fetch_nothing(written):
    assert "default-src 'none'" in written
    assert not re.search(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="(?!data:)', written)


def test_the_same_logs_make_the_same_file(logdir, tmp_path, written):
    one_file.write_report(logdir, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == written


def test_an_old_report_is_replaced_for_all_to_read_and_nothing_left_beside_it(logdir, tmp_path):
    output = tmp_path / "report.html"
    output.write_text("old")
    output.chmod(0o600)
    one_file.write_report(logdir, output)
    assert output.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert output.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "report.html"]


def test_a_full_disk_leaves_the_old_report(logdir, tmp_path, monkeypatch):
    output = tmp_path / "report.html"
    output.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"report\.html can't be written: No space left on device"):
        one_file.write_report(logdir, output)
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "report.html"]


@pytest.mark.parametrize(
    ("logs", "output", "words"),
    [
        ("nowhere", "report.html", r"no folder .*nowhere"),
        ("logs/empty", "report.html", r"no TensorBoard event files below .*empty"),
        ("logs/foreign", "report.html", r"None of the 1 runs .* DeadReLUMonitor"),
        ("logs", "logs", r"logs can't be written: Is a directory"),
    ],
)
def test_a_users_mistake_is_named(logdir, tmp_path, logs, output, words):
    (logdir / "empty").mkdir()
    with pytest.raises(UserError, match=words):
        one_file.write_report(tmp_path / logs, tmp_path / output)


def test_a_title_cannot_be_markup():
    assert "<title>a &lt;b&gt; &amp; c</title>" in page("a <b> & c", "", "")


def test_a_script_cannot_end_its_element():
    assert inline_script("'</SCRIPT>' + '</p>'") == r"'<\/SCRIPT>' + '</p>'"
