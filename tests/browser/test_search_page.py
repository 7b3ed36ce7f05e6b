"""A search's report in a real browser, from a file: no server, no network."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from fmnist_pl.search.report import write_report

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror=alert(1)><a href="http://example.com/">link</a> <b>bold</b> `|'
ENDING = "</script><script>alert(2)</script>"
SPACE = {HOSTILE: CategoricalDistribution([HOSTILE, ENDING]), "rate": FloatDistribution(0.0, 1.0)}


@pytest.fixture(scope="module")
def page(tmp_path_factory, open_page):
    folder = tmp_path_factory.mktemp("search")
    study = optuna.create_study(direction="maximize", study_name=HOSTILE)
    for i in range(30):
        figures = {"parameters": 10 + i, "seconds": 3.0 + i, "dead_share": i / 60, "run": HOSTILE}
        study.add_trial(
            optuna.create_trial(
                value=0.8 + 0.05 * (i % 2) + 0.0007 * i,
                params={HOSTILE: [HOSTILE, ENDING][i % 2], "rate": i * 7 % 30 / 30},
                distributions=SPACE,
                user_attrs=figures,
            )
        )
    study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs={"failure": HOSTILE}))
    write_report(study, folder, None)
    page = open_page("file://").page
    page.goto((folder / "report.html").as_uri())
    page.locator("[data-plot] .main-svg").first.wait_for()
    return page


def test_every_plot_is_drawn(page):
    places = page.locator("[data-plot]")

    assert places.count() == 6
    assert all(places.nth(i).locator(".main-svg").count() > 0 for i in range(6))


def test_names_are_shown_as_they_are(page):
    assert HOSTILE.replace("`", "'") in page.locator("#s2 code").all_inner_texts()
    assert page.locator("img, b, section a").count() == 0
    assert "<img src=x onerror=alert(1)><a …" in page.locator("#s3 .ytick text").all_text_contents()


def test_nothing_is_wider_than_the_window(page):
    for width in (1400, 480):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
