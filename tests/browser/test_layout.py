"""The page's layout: no card with large empty space, no caption over another; as a report, which is quick."""

import math

import numpy as np
import pytest

from tests.browser.test_tab import drawn, wait_until
from tests.training_health.tab.health_log_writer import HealthLogWriter
from training_health.tab.one_file import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

UNITS = 128
ROWS = """grid => {
  const tops = [...grid.children].map((card) => Math.round(card.getBoundingClientRect().top));
  return [...new Set(tops)].map((top) => tops.filter((other) => other === top).length);
}"""
# the free width beside the last card of each row
FREE = """list => {
  const rights = new Map();
  for (const card of list.children) {
    const { top, right } = card.getBoundingClientRect();
    rights.set(Math.round(top), Math.max(right, rights.get(Math.round(top)) ?? 0));
  }
  return [...rights.values()].map((right) => Math.round(list.getBoundingClientRect().right - right));
}"""


@pytest.fixture(scope="module")
def open_report(open_page, tmp_path_factory):
    """Opens a report of so many runs of one variant, at a width; the first half of them has findings."""

    def open_it(runs: int, width: int):
        logdir = tmp_path_factory.mktemp("logs")
        for seed in range(runs):
            with HealthLogWriter(logdir / f"run_{seed}") as log:
                log.text("run", {"variant": "a", "dataset": "images", "seed": seed, "max_epochs": 2})
                write_pictures(log, dead=UNITS // 2 if 2 * seed < runs else 0)
                log.text("result", {"status": "finished"}, step=1000)
        write_report(logdir, logdir / "report.html")
        page = open_page("file://", viewport={"width": width, "height": 800})
        page.goto((logdir / "report.html").as_uri())
        page.locator("body[data-ready]").wait_for()
        return page

    return open_it


def write_pictures(log: HealthLogWriter, dead: int) -> None:
    activity = np.full(UNITS, 0.5)
    activity[UNITS - dead :], activity[0] = 0, 0.001
    for epoch in range(2):
        log.activity(epoch, "conv1", 0, activity.tolist())
        log.gap(epoch, train_eval_accuracy=0.8, val_accuracy=0.75, accuracy_gap=0.05, accuracy_gap_se=0.01)
        log.parameters("update_ratio", epoch, {"conv1.weight": 1e-3})
    weights = np.linspace(-1, 1, UNITS * 9).tolist()
    log.numeric("filters/conv1", "filters", 1, [math.nan, *weights], site="conv1", shape=[UNITS, 1, 3, 3])


@pytest.mark.parametrize("runs", [1, 2, 3, 4, 6])
def test_rows_of_cards_are_full_and_pictures_fill_their_card(open_report, runs):
    page = open_report(runs, 390)
    for width in (1280, 1440, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        grids = page.locator(".grid").all()
        assert len(grids) == 5  # maps of units, filters, gaps, accuracies, update ratios
        assert [rows for grid in grids if len(set(rows := grid.evaluate(ROWS))) > 1] == []
        lists = page.locator(".run-list, .findings:visible").all()
        assert [free for found in lists if any(free := found.evaluate(FREE))] == []
        for run in range(runs):
            chart = f"filters_run_{run}_conv1"
            filled = "[[plot._fullLayout.xaxis, plot.clientWidth], [plot._fullLayout.yaxis, plot.clientHeight]]"
            fractions = f"{filled}.map(([axis, length]) => axis._length / length)"
            wait_until(lambda chart=chart, fractions=fractions: min(drawn(page, chart, fractions)) > 0.9)
            card = page.locator(f'[data-chart="{chart}"]').evaluate("e => e.clientWidth")
            assert drawn(page, chart, "plot.clientWidth") / card > 0.9


@pytest.mark.parametrize("width", [360, 390])
def test_captions_of_pictures_touch_neither_each_other_nor_a_frame_on_a_phone(open_report, width):
    page = open_report(1, width)
    boxes = """[...plot.querySelectorAll(".textpoint text, .shapelayer path")].map((one) => one.getBoundingClientRect())
      .map(({ left, right, top, bottom }) => [left, right, top, bottom])"""
    found = drawn(page, "filters_run_0_conv1", boxes)
    assert len(found) == UNITS + UNITS // 2 + 1  # each has a number, the dead and the rare one a frame
    touching = [
        (a, b)
        for i, a in enumerate(found)
        for b in found[:i]
        if a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
    ]
    assert touching == []


def test_what_has_no_other_to_be_compared_with_is_not_called_best(open_report):
    alone, together = open_report(1, 1280), open_report(2, 1280)
    assert "highest" not in alone.locator("#runs").inner_text()
    assert "highest" in together.locator("#runs").inner_text()
    variants = together.locator("#seeds").inner_text()
    assert "75.00% ± 0.00" in variants
    assert not any(words in variants for words in ("best mean", "reference", "Reference"))
