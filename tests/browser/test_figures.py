"""The command that measures the page, once on small logs: that it works, not what it measures."""

import re
import subprocess
import sys

import pytest

from tests.browser.known_log import write_known_logs

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_each_figure_is_printed_with_its_range_and_n(browser, tmp_path):
    write_known_logs(tmp_path)
    command = [sys.executable, "-m", "tests.browser.figures", str(tmp_path), "1"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^(\w+: .*?)(?:, ms)?: [\d.e+-]+ \([\d.e+-]+ to [\d.e+-]+, n = 1\)$", printed, re.MULTILINE)
    assert len(names) == len(printed.splitlines()) == 7
    for words in ("first paint", "longest task while it loads", "longest task while scrolling"):
        assert {f"tab: {words}", f"report: {words}"} <= set(names)
    assert names[-1] == "tab: layout shift of a reload with new records"
