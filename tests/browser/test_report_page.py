"""The report in a real browser, from a file: no server, no network."""

import pytest

from tests.browser.known_log import DYING, HOSTILE, STEADY, write_known_logs
from training_health.tab.one_file import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def report(tmp_path_factory, open_page):
    tmp_path = tmp_path_factory.mktemp("report")
    write_known_logs(tmp_path / "logs")
    write_report(tmp_path / "logs", tmp_path / "report.html")
    page = open_page("file://")
    page.goto((tmp_path / "report.html").as_uri())
    page.locator("body[data-ready]").wait_for()
    return page


def test_the_report_shows_the_tabs_numbers(report):
    assert report.locator(f'#runs tr[data-run="{STEADY}"] td').nth(4).inner_text() == "+7.0 ± 1.6 real"
    assert report.locator(f'#runs tr[data-run="{DYING}"] td').nth(3).inner_text() == "33.3%"
    assert report.locator("#chips .chip").count() == 4


@pytest.mark.parametrize(
    ("chart", "expression", "value"),
    [
        ("gap_accuracy", "p.data.length", 3),  # three runs, each a line: bands of more than two hide each other
        (f"unit_map_{DYING}_fc1", "[...p.data[0].y]", ["3", "1", "2", "0"]),
    ],
)
def test_charts_are_drawn(report, chart, expression, value):
    plot = report.locator(f'[data-chart="{chart}"] .plot')
    plot.scroll_into_view_if_needed()
    report.locator(f'[data-chart="{chart}"] .plot[data-drawn]').wait_for()
    assert plot.evaluate(f"p => {expression}") == value


def test_choices_are_kept_in_the_reports_address(report):
    report.get_by_role("button", name="Pick none").click()
    report.locator(f'[data-pick="{HOSTILE}"]').check()
    report.wait_for_function("location.hash.includes('onerror')")
    report.reload()
    report.locator("body[data-ready]").wait_for()
    assert report.locator("#chips .chip-name").all_inner_texts() == [HOSTILE]
    assert report.locator("img").count() == 0


def test_the_report_has_its_own_switch_of_theme(report):
    report.get_by_role("button", name="Light / dark").click()
    assert report.locator("html").get_attribute("data-theme") == "dark"
