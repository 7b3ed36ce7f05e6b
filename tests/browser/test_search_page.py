"""A search's report in a real browser, from a file: no server, no network; the fixtures fail on any outside request."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from fmnist_pl.search.report import write_report
from tests.fmnist_pl.search.report.studies import study, trial

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = '<img src=x onerror=alert(1)><a href="http://example.com/">link</a> <b>bold</b> `|'
ENDING = "</script><script>alert(2)</script>"
SPACE = {HOSTILE: CategoricalDistribution([HOSTILE, ENDING]), "<b>x": FloatDistribution(0.0, 1.0)}


@pytest.fixture(scope="module")
def page(tmp_path_factory, open_page):
    folder = tmp_path_factory.mktemp("search")
    trials = []
    for i in range(40):
        metrics = {"parameters": 10 + i, "seconds": 3.0 + i, "dead_fraction": i / 60, "run": HOSTILE}
        params = {HOSTILE: [HOSTILE, ENDING][i % 2], "<b>x": i * 7 % 40 / 40}
        trials.append(trial(0.8 + 0.05 * (i % 2) + 0.0007 * i, params, space=SPACE, **metrics))
    write_report(study(*trials, trial(failure=HOSTILE), name=HOSTILE, options=[ENDING]), folder, None)
    page = open_page("file://")
    page.goto((folder / "report.html").as_uri())
    page.locator("figure .main-svg").first.wait_for()
    return page


def test_every_chart_is_drawn_without_buttons(page):
    charts = page.locator("figure .plotly-graph-div")

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
