"""The page with many runs: seeds of variants, one run that failed, and long names; as a report, which is quick."""

import pytest

from tests.browser.test_tab import drawn, table_of, wait_until
from tests.training_health.tab.health_log_writer import HealthLogWriter
from training_health.tab.one_file import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FOLDER = "search/default_space-3_epochs-8000_images"
RUNS = 24
GAPS = {
    "a": [0.01, 0.02, 0.03],
    "b": [0.03, 0.05, 0.07],
}  # of variants a and b, by seed; the differences: 2, 3, 4 points


@pytest.fixture(scope="module")
def tab(open_page, tmp_path_factory):
    """Two variants of three seeds and eighteen trials, the last of which failed."""
    logdir = tmp_path_factory.mktemp("logs")
    for number in range(RUNS):
        variant, seed = "ab"[number // 3] if number < 6 else "trial", number % 3 if number < 6 else None
        with HealthLogWriter(logdir / FOLDER / f"trial_{number:04}" / "version_0", wall_time=1.7e9 + number) as log:
            log.text("run", {"variant": variant, "dataset": "images", "seed": seed, "max_epochs": 2})
            for epoch in range(2):
                gap = GAPS[variant][seed] if seed is not None else 0.9 if number == RUNS - 1 else 0.02
                died = number == RUNS - 1 and epoch
                log.activity(epoch, "conv1", 0, [0.0] * 4 if died else [0.0, 0.5, 0.5, 0.5])
                log.activity(epoch, "fc1", 1, [0.0, 0.0 if epoch else 0.5, 0.5, 0.005])
                sides = {"train_eval_accuracy": 0.95, "val_accuracy": 0.95 - gap}
                log.gap(epoch, **sides, accuracy_gap=gap, accuracy_gap_se=0.004)
            log.text("result", {"status": "finished"}, step=1000)
    write_report(logdir, logdir / "report.html")
    page = open_page("file://")
    page.goto((logdir / "report.html").as_uri())
    page.locator("body[data-ready]").wait_for()
    return page, page


def test_names_lose_what_all_share_and_columns_that_do_not_differ_are_a_line(tab):
    _, frame = tab
    assert frame.locator("#runs td.run").first.inner_text() == "trial_0000"
    titles = frame.locator("#runs thead th").all_inner_texts()
    assert [title.strip("\n▴") for title in titles[1:3]] == ["Run", "Verdict"]
    assert "Dataset" not in titles
    common = frame.locator(".common").inner_text()
    assert f"dataset images, names {FOLDER}/…/version_0" in common


def test_the_newest_runs_are_picked_at_first(tab):
    _, frame = tab
    names = frame.locator("#chips .chip-name").all_inner_texts()
    assert names == [f"trial_{number:04}" for number in range(18, 24)]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_verdict_is_on_the_screen_and_the_name_stays_when_scrolled_sideways(tab, width):
    page, frame = tab
    page.set_viewport_size({"width": width, "height": 800})
    right = "e => e.getBoundingClientRect().right"
    assert frame.locator("#runs td.verdict .pill").first.evaluate(right) <= width
    frame.locator(".overview").evaluate("e => (e.scrollLeft = 10000)")
    assert frame.locator("#runs td.run").first.evaluate("e => e.getBoundingClientRect().left") >= 0
    assert frame.locator("html").evaluate("e => e.scrollWidth <= e.clientWidth")
    page.set_viewport_size({"width": 1280, "height": 800})


def test_no_name_verdict_or_dead_fraction_is_cut_off_on_a_phone(tab):
    page, frame = tab
    page.set_viewport_size({"width": 390, "height": 800})
    frame.locator(".overview").evaluate("e => (e.scrollLeft = 0)")
    cut_off = frame.locator(".overview").evaluate(
        """box => [...box.querySelectorAll("tr > :is(.run, .verdict, .dead)")].filter((cell) => {
          const range = document.createRange();
          range.selectNodeContents(cell);
          const [text, own] = [range.getBoundingClientRect(), cell.getBoundingClientRect()];
          const right = Math.min(own.right, box.getBoundingClientRect().left + box.clientLeft + box.clientWidth);
          return text.left < own.left || text.right > right;
        }).map((cell) => cell.textContent)"""
    )
    assert cut_off == []
    assert frame.locator("#runs td.run").first.evaluate("e => e.clientWidth") > 80
    page.set_viewport_size({"width": 1280, "height": 800})


def test_variants_with_their_spread_and_differences_paired_by_seed(tab):
    _, frame = tab
    frame.get_by_role("button", name="Pick all shown").click()
    cells = frame.locator('#variants tr[data-variant="b"] td').all_inner_texts()
    assert cells[0] == "3"
    # mean 5, sample standard deviation 2; differences 2, 3, 4: mean 3, sd 1, t(2) = 4.303, half width 4.303 / sqrt(3)
    assert [line for line in cells[2].splitlines() if line] == ["+5.00 ± 2.00", "+3.00 ± 2.48 real"]
    frame.get_by_role("button", name="Mean and band of each variant").click()
    rows = table_of(frame, "gap_now_accuracy")
    assert [row["verdict"] for row in rows[:2]] == ["noise", "real"]  # 2 ± 2.48 and 5 ± 4.97 points
    assert float(rows[1]["half_of_95_interval"]) == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)
    frame.get_by_role("button", name="Each run").click()
    frame.locator("#chips .chip").nth(RUNS - 1).wait_for()


def test_a_run_whose_units_all_died_is_in_the_drawn_range(tab):
    _, frame = tab
    frame.get_by_role("button", name="Pick all shown").click()
    assert drawn(frame, "dead_units_conv1", "plot._fullLayout.yaxis.range[1]") >= 1


def test_one_run_that_failed_does_not_squeeze_the_others(tab):
    _, frame = tab
    frame.get_by_role("button", name="Pick all shown").click()
    assert drawn(frame, "gap_accuracy", "plot._fullLayout.yaxis.range[1]") < 10  # points; the one that failed has 90
    card = frame.locator('[data-chart="gap_accuracy"]')
    assert "Outside of the drawn range, in the table: trial_0023" in card.locator(".card-subtitle").inner_text()
    assert drawn(frame, "gap_accuracy", "plot.data.length") == RUNS  # lines only: 24 bands would hide each other
    assert drawn(frame, "gap_now_accuracy", "plot.data.length") == RUNS
    assert "24 picked: " in frame.locator("#gap").inner_text()


def test_layers_by_epoch_the_worst_first(tab):
    _, frame = tab
    frame.get_by_role("button", name="Pick none").click()
    frame.locator("[data-pick$='trial_0000/version_0']").check()
    chart = f"sites_dead_{FOLDER}/trial_0000/version_0"
    assert drawn(frame, chart, "plot.data[0].y") == ["fc1", "conv1"]
    assert drawn(frame, chart, "[...plot.data[0].z.map(row => [...row])]") == [[0.25, 0.5], [0.25, 0.25]]
    assert frame.locator("#site option").all_inner_texts() == ["fc1: 50.0% dead", "conv1: 25.0% dead"]
    frame.get_by_role("button", name="Rare").click()
    rare = f"sites_rare_{FOLDER}/trial_0000/version_0"
    assert drawn(frame, rare, "[...plot.data[0].z.map(row => [...row])]") == [[0.25, 0.25], [0, 0]]
    frame.get_by_role("button", name="Sparsity").click()
    sparse = f"sites_sparsity_{FOLDER}/trial_0000/version_0"
    assert drawn(frame, sparse, "plot.data[0].z[0][1]") == pytest.approx(1 - 0.505 / 4, abs=1e-4)
    assert drawn(frame, sparse, "[...plot._fullLayout.xaxis.tickvals]") == [1, 2]


def test_the_focus_is_never_lost(tab):
    page, frame = tab
    frame.get_by_role("button", name="Pick all shown").focus()
    page.keyboard.press("Enter")
    frame.locator("#chips .chip").nth(RUNS - 1).wait_for()
    focused = "() => document.activeElement.ariaLabel ?? document.activeElement.textContent"
    assert frame.locator("body").evaluate(focused) == "Pick all shown"
    frame.locator("#chips button").first.focus()
    page.keyboard.press("Enter")  # its chip goes; the next one is at hand
    frame.locator("#chips .chip").nth(RUNS - 1).wait_for(state="detached")
    assert frame.locator("body").evaluate(focused).startswith("Stop comparing")
    frame.locator("#site").focus()
    page.keyboard.press("ArrowDown")
    wait_until(lambda: frame.locator("#site").evaluate("e => e === document.activeElement && e.value === 'fc1'"))


def test_runs_of_a_variant_with_other_options_have_a_row_of_their_own(open_page, tmp_path):
    for number, options in enumerate(["quick", "quick", "slow", "slow"]):
        with HealthLogWriter(tmp_path / f"run_{number}", wall_time=1.7e9 + number) as log:
            log.text(
                "run", {"variant": "a", "dataset": "images", "seed": number % 2, "max_epochs": 1, "options": options}
            )
            log.activity(0, "conv1", 0, [0.0, 0.5])
            log.gap(0, train_eval_accuracy=0.9, val_accuracy=0.9 - number / 10, accuracy_gap=number / 10)
            log.text("result", {"status": "finished"}, step=10)
    write_report(tmp_path, tmp_path / "report.html")
    page = open_page("file://")
    page.goto((tmp_path / "report.html").as_uri())
    page.locator("body[data-ready]").wait_for()

    rows = page.locator("#variants tbody tr")
    assert [row.get_attribute("data-variant") for row in rows.all()] == ["a (options quic)", "a (options slow)"]
    assert [row.locator("td").all_inner_texts()[0] for row in rows.all()] == ["2", "2"]
