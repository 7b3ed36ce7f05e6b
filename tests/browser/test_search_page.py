"""A search's report in a real browser, from a file: no server, no network; the fixtures fail on any outside request."""

import pytest

from fmnist_pl.search.report import write_report
from tests.browser.studies import HOSTILE, hostile_study

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def page(tmp_path_factory, open_page):
    folder = tmp_path_factory.mktemp("search")
    write_report(hostile_study(), folder, None)
    page = open_page("file://")
    page.goto((folder / "report.html").as_uri())
    page.locator("figure .main-svg").first.wait_for()
    return page


def test_every_chart_is_drawn_without_buttons(page):
    charts = page.locator("figure .chart")

    assert charts.count() == 6
    assert all(charts.nth(i).locator(".main-svg").count() > 0 for i in range(6))
    assert page.locator(".modebar-btn").count() == 0


def test_names_are_shown_as_they_are(page):
    assert HOSTILE.replace("`", "'") in page.locator("td code").all_inner_texts()
    assert page.locator("main img, main b, main a, main svg a").count() == 0
    assert "<b>x" in page.locator("#effects .ytick text").all_text_contents()


@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_is_wider_than_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 900})

    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_printed_search_has_its_charts_at_the_sheets_width(page):
    page.set_viewport_size({"width": 1400, "height": 900})
    page.locator("figure .chart").nth(5).locator(".main-svg").first.wait_for()  # the last one
    page.evaluate(
        """() => addEventListener("beforeprint", () => {
          const charts = [...document.querySelectorAll("figure .chart")];
          window.printed = [main().clientWidth, charts.map((chart) => chart.querySelector(".main-svg").clientWidth)];
          function main() { return document.querySelector("main"); }
        })"""
    )
    page.pdf()
    assert page.evaluate("window.printed") == [680, [680] * 6]  # 180 mm
    assert page.evaluate("document.querySelector('main').clientWidth") > 680
