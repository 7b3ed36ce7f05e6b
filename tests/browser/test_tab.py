"""The tab in a real browser."""

import json
import time
import urllib.request

import pytest

from tests.browser.conftest import serve, serve_pages
from tests.browser.known_log import BROKEN, DYING, HOSTILE, STEADY, write_epoch, write_known_logs
from tests.training_health.tab.health_log_writer import HealthLogWriter
from training_health.log_format import tensor_record

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FRAME = "iframe[src*='plugin_entry.html?name=training_health']"
DYING_MAP = f"unit_map_{DYING}_fc1"


@pytest.fixture(scope="module")
def served(browser, tmp_path_factory):
    """Address and folder of a TensorBoard on the known logs."""
    logdir = tmp_path_factory.mktemp("logs")
    write_known_logs(logdir)
    for address in serve(logdir, "true"):
        yield address, logdir


@pytest.fixture(scope="module")
def tab(served, open_page):
    """The tab, opened and filled: TensorBoard's page and the tab's frame. The tests share it, each picks its runs."""
    return open_tab(open_page, served[0])


def open_tab(open_page, address: str, hash_: str = "#training_health", least_rows: int = 6):
    """The tab, opened when TensorBoard has read the logs: before, it answers with what it has."""
    seen: list[dict[str, str]] = [{}, {}]

    def nothing_comes_any_more() -> bool:
        seen.append(runs_read(address))
        time.sleep(1)  # TensorBoard looks again once a second
        return len(seen[-1]) >= least_rows and seen[-3] == seen[-2] == seen[-1]

    wait_until(nothing_comes_any_more)
    page = open_page(address)
    page.goto(address + hash_)
    frame = page.frame_locator(FRAME)
    frame.locator("body[data-ready]").wait_for()
    return page, frame


def runs_read(address: str) -> dict[str, str]:
    """Each run, with a mark that changes when more of it is read."""
    with urllib.request.urlopen(f"{address}data/plugin/training_health/overview") as answer:
        return {row["run"]: row["revision"] for row in json.load(answer)["runs"]}


def wait_until(seen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline, "what was waited for never came"


def cells(frame, run: str) -> list[str]:
    return frame.locator(f'#runs tr[data-run="{run}"] td').all_inner_texts()


def table_of(frame, chart: str) -> list[dict[str, str]]:
    """The rows of a chart's table, as shown to people who can't or won't see the chart."""
    card = frame.locator(f'[data-chart="{chart}"]')
    card.get_by_role("button", name="as a table").click()
    names = card.locator("th").all_inner_texts()
    rows = card.locator(".table-alternative tbody tr").all()
    return [dict(zip(names, row.locator("td").all_inner_texts(), strict=True)) for row in rows]


def drawn(frame, chart: str, expression: str):
    """Evaluates an expression on the chart's Plotly element, once it is drawn.

    One call scrolls, looks and evaluates: the page may put another element in this one's stead between two calls.
    """
    plot = frame.locator(f'[data-chart="{chart}"] .plot')
    script = f"plot => {{ plot.scrollIntoView(); return plot.dataset.drawn ? [{expression}] : null }}"
    found = []

    def seen() -> bool:
        plot.page.wait_for_timeout(20)
        found[:] = plot.evaluate(script) or []
        return bool(found)

    wait_until(seen)
    return found[0]


def pick_only(frame, *runs: str) -> None:
    frame.get_by_role("button", name="Pick none").click()
    for run in runs:
        frame.locator(f'[data-pick="{run}"]').check()
    frame.locator("#chips .chip").nth(len(runs) - 1).wait_for()


def show_site(frame, site: str) -> None:
    frame.locator("#site").select_option(site)
    frame.locator(f'[data-chart="dead_units_{site}"]').wait_for()


def show_map(frame) -> None:
    """The map of the dying run's dense layer, dead units first."""
    pick_only(frame, DYING)
    show_site(frame, "fc1")
    frame.get_by_role("button", name="Sorted by death").click()
    frame.locator(f'[data-chart="{DYING_MAP}"]').wait_for()


def test_the_table_shows_each_run_with_its_numbers(tab):
    page, frame = tab
    assert page.locator("[role=tab]:visible", has_text="Training Health").count() == 1
    steady = cells(frame, STEADY)
    assert (steady[1], steady[2].splitlines()[-1]) == (STEADY, "No alarm")
    assert steady[3:7] == ["0.0%", "+7.0 ± 1.6 real", "highest 75.00%", "87.50%"]
    assert steady[7:] == ["3 / 3 finished", "baseline", "synthetic", "3"]
    assert cells(frame, DYING)[3] == "33.3%"
    assert cells(frame, DYING)[7] == "3 / 9 stalled"
    assert "No monitors" in cells(frame, "foreign")[2]
    assert "62.50%" in cells(frame, "foreign")[2]
    assert "newer version" in cells(frame, "future")[2]
    assert not frame.locator('[data-pick="future"]').is_enabled()


def test_sorting_and_filtering(tab):
    _, frame = tab
    frame.get_by_role("button", name="Dead units", exact=True).click()
    order = [row.get_attribute("data-run") for row in frame.locator("#runs tbody tr").all()]
    assert order[:4] == [HOSTILE, BROKEN, DYING, STEADY]
    assert frame.locator("th[aria-sort=descending]").inner_text().startswith("Dead units")
    frame.locator("#filter").press_sequentially("baseline")
    assert [row.get_attribute("data-run") for row in frame.locator("#runs tbody tr").all()] == [STEADY]
    frame.locator("#filter").fill("")


def test_dead_and_rare_fractions(tab):
    _, frame = tab
    pick_only(frame, STEADY, DYING)
    show_site(frame, "fc1")
    assert [row["dead"] for row in table_of(frame, "dead_units_total")] == ["1", "2", "2", "0", "0", "0"]
    fc1 = table_of(frame, "dead_units_fc1")[:3]
    columns = {name: [row[name] for row in fc1] for name in ("dead_fraction", "rare", "deaths", "revivals")}
    assert columns == {
        "dead_fraction": ["0.25", "0.5", "0.5"],
        "rare": ["0", "1", "0"],
        "deaths": ["0", "1", "1"],
        "revivals": ["0", "0", "1"],
    }
    of_dying = "plot.data.find(t => t.name.includes('dying') && t.name.endsWith('dead')).y"
    assert drawn(frame, "dead_units_total", of_dying) == pytest.approx([1 / 6, 2 / 6, 2 / 6])


def test_the_map_gives_dead_cells_a_colour_of_their_own(tab):
    _, frame = tab
    show_map(frame)
    alive, zero = drawn(frame, DYING_MAP, "plot.data.slice(0, 2).map(t => t.z.map(row => [...row]))")
    # rows: dead first by when they died: units 3, 1; then the living from quiet to busy: 2, 0
    assert drawn(frame, DYING_MAP, "plot.data[0].y") == ["3", "1", "2", "0"]
    assert zero == [[1, 1, 1], [None, None, 1], [None, 1, None], [None, None, None]]
    assert alive[1] == pytest.approx([-0.39794, -2.30103, None], nan_ok=True)
    assert drawn(frame, DYING_MAP, "plot.data.slice(3).map(t => [[...t.y], [...t.x]])") == [
        [["2", "1"], [2, 3]],  # died
        [["2"], [3]],  # came back
        [["1"], [2]],  # got new weights
    ]
    frame.get_by_role("button", name="By index").click()
    wait_until(lambda: drawn(frame, DYING_MAP, "plot.data[0].y") == ["0", "1", "2", "3"])


def test_a_unit_that_is_not_a_number_is_neither_dead_nor_alive(tab):
    _, frame = tab
    pick_only(frame, BROKEN)
    assert cells(frame, BROKEN)[2].endswith("Outputs are not numbers")
    assert cells(frame, BROKEN)[3:6] == ["50.0%\n2 NaN", "loss 0.25 ± 0.2 real", "loss 0.75"]
    (total,) = table_of(frame, "dead_units_total")
    assert (total["dead"], total["dead_fraction"], total["not_a_number"]) == ("1", "0.5", "2")
    chart = f"unit_map_{BROKEN}_fc1"
    assert drawn(frame, chart, "plot.data[2].z.map(row => [...row])") == [[None], [None], [1], [1]]
    assert (
        "1 of 4 units dead, 2 not a number at the last epoch, n unknown"
        in frame.locator(f'[data-chart="{chart}"] .card-subtitle').inner_text()
    )
    assert drawn(frame, "gap_loss", "[...plot.data[2].y]") == pytest.approx([0.25])


def test_picks_that_are_not_in_this_folder_fall_back_to_the_first_runs(served, open_page):
    _, frame = open_tab(open_page, served[0], '#training_health&p.training_health.view={"runs":["elsewhere"]}')
    assert frame.locator("#chips .chip").count() == 4


def test_hovering_a_dead_cell_says_what_dead_means(tab):
    page, frame = tab
    show_map(frame)
    drawn(frame, DYING_MAP, "true")
    box = frame.locator(f'[data-chart="{DYING_MAP}"] .plot .nsewdrag').bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 8)
    hover = frame.locator(f'[data-chart="{DYING_MAP}"] .hoverlayer')
    hover.locator("text").first.wait_for()
    for words in ("unit 3, epoch 2", "none of 5000 examples", "at most 0.06% of all (95%, 3/n)"):
        assert words in hover.text_content()


def test_the_charts_buttons_are_those_that_stay_on_this_machine(tab):
    _, frame = tab
    pick_only(frame, DYING)
    drawn(frame, "gap_accuracy", "true")
    titles = "[...plot.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
    for chart in ("gap_accuracy", "dead_units_total", DYING_MAP):
        assert drawn(frame, chart, titles) == ["Zoom", "Pan", "Reset axes"]
        assert drawn(frame, chart, "plot._context.plotlyServerURL") == ""


def test_the_gap_with_its_band(tab):
    _, frame = tab
    pick_only(frame, STEADY)
    assert [row["accuracy_gap"] for row in table_of(frame, "gap_accuracy")] == ["0.05", "0.06", "0.07"]
    bands = drawn(frame, "gap_accuracy", "plot.data.map(t => [...t.y])")  # low, high, line
    for values, expected in zip(bands, ([3.4, 4.4, 5.4], [6.6, 7.6, 8.6], [5.0, 6.0, 7.0]), strict=True):
        assert values == pytest.approx(expected, abs=1e-4)
    assert drawn(frame, "mode_effect_accuracy", "[...plot.data[0].y]") == pytest.approx([10, 11, 12], abs=1e-4)
    frame.get_by_role("button", name="Loss", exact=True).click()
    assert drawn(frame, "gap_loss", "[...plot.data[2].y]") == pytest.approx([0.1] * 3, abs=1e-6)
    assert drawn(frame, "mode_effect_loss", "[...plot.data[0].y]") == pytest.approx([0.3] * 3, abs=1e-6)
    frame.get_by_role("button", name="Accuracy", exact=True).click()
    frame.locator('[data-chart="gap_accuracy"]').wait_for()


def test_the_update_ratios_around_their_reference(tab):
    _, frame = tab
    pick_only(frame, STEADY)
    layers = "plot.data.slice(0, 2).map(t => t.z.map(row => [...row]))"
    ratio, still = drawn(frame, f"update_ratio_{STEADY}", layers)
    assert ratio[0] == pytest.approx([-3, -3, -3], abs=1e-5)
    assert ratio[1][1:] == pytest.approx([-4, -4], abs=1e-5)
    assert still == [[None] * 3, [1, None, None]]


def test_the_first_layers_filters_with_their_state(tab):
    _, frame = tab
    pick_only(frame, STEADY)
    chart = f"filters_{STEADY}_conv1"
    grey = "plot.data[0].z.map(row => row.map(([r, , , alpha]) => (alpha ? r : null)))"
    assert [row[:5] for row in drawn(frame, chart, grey)][:2] == [[255, 128, None, 128, 128], [64, 128, None, 128, 128]]
    assert drawn(frame, chart, "plot.data[1].text") == ["0", "1"]
    rows = table_of(frame, chart)
    assert [(row["unit"], row["state"], row["l2_norm"]) for row in rows] == [
        ("0", "alive", "1.118"),
        ("1", "alive", "0"),
    ]
    pick_only(frame, DYING)
    assert drawn(frame, f"filters_{DYING}_conv1", "true")


def test_the_examples_that_fire_the_units_that_fire_least(tab):
    _, frame = tab
    pick_only(frame, STEADY, DYING)
    chart = f"examples_{STEADY}"
    assert drawn(frame, chart, "plot.data[0].z[0].slice(0, 5).map(([r, , , alpha]) => (alpha ? r : null))") == [
        0, 255, None, 128, 0
    ]  # fmt: skip
    assert drawn(frame, chart, "plot.data[1].text") == ["fc1 3: active 20.00%"]
    assert [row["pre_activation"] for row in table_of(frame, chart)] == ["1.5", "0.25"]
    assert frame.locator(f'[data-chart="examples_{DYING}"]').count() == 0


def test_the_scale_of_activations_and_gradients_by_layer(tab):
    _, frame = tab
    pick_only(frame, STEADY)
    forward, backward = f"activation_scale_{STEADY}", f"gradient_scale_{STEADY}"
    assert drawn(frame, forward, "plot.data[0].y") == ["conv1", "fc1"]
    log10 = drawn(frame, forward, "plot.data[0].z.map(row => [...row])")
    assert [log10[0], log10[1]] == [pytest.approx([0.30103] * 3), pytest.approx([-0.30103, -0.60206, -0.778151])]
    assert drawn(frame, backward, "plot.data.map(t => t.z.map(row => [...row]))") == [
        [pytest.approx([-3] * 3, abs=1e-5), [None] * 3],
        [[None] * 3, [1] * 3],  # exactly 0
    ]
    assert "n = 50" in frame.locator(f'[data-chart="{forward}"] .card-subtitle').inner_text()


def test_the_accuracy_of_each_class(tab):
    _, frame = tab
    pick_only(frame, STEADY)
    chart = f"class_accuracy_{STEADY}"
    assert drawn(frame, chart, "plot.data[0].z.map(row => [...row])") == [[0.9] * 3, [0.6] * 3]
    assert table_of(frame, chart)[-1] == {
        "run": STEADY, "class": "bag", "epoch": "3", "n": "5000", "class_accuracy": "0.6"
    }  # fmt: skip


def test_findings_name_their_rule_and_source(tab):
    _, frame = tab
    pick_only(frame, DYING)
    finding = frame.locator('[data-rule="dead_from_the_start"]')
    for words in ("2 of 6 units (33.3%)", "Rule Warning when 40% of the network", "SageMaker"):
        assert words in finding.inner_text()
    assert finding.locator("code").all_inner_texts() == ["Trainer(gradient_clip_val=1.0)"]  # of those that were killed


def test_a_hostile_run_name_is_text_everywhere(tab):
    _, frame = tab
    pick_only(frame, HOSTILE)
    assert cells(frame, HOSTILE)[1] == HOSTILE
    assert frame.locator("#chips .chip-name").inner_text() == HOSTILE
    assert drawn(frame, f"unit_map_{HOSTILE}_<b>bold</b>", "plot.querySelectorAll('img, b, i').length") == 0
    assert drawn(frame, f"update_ratio_{HOSTILE}", "plot.querySelector('.ytick text').textContent") == "<i>weight</i>"
    assert frame.locator("img").count() == 0


def test_picked_runs_survive_other_tabs_and_a_reload_and_travel_in_a_link(tab, served, open_page):
    page, frame = tab
    pick_only(frame, DYING)
    show_site(frame, "conv1")
    page.wait_for_function("location.hash.includes('conv1')")
    link = page.url
    page.reload()
    frame.locator("#chips .chip").first.wait_for()
    page.locator("[role=tab]:visible", has_text="Scalars").click()
    page.wait_for_function("location.hash.startsWith('#scalars')")
    page.locator("[role=tab]:visible", has_text="Training Health").click()
    frame.locator("#chips .chip").first.wait_for()
    _, elsewhere = open_tab(open_page, served[0], "#" + link.split("#", 1)[1])  # a profile that has stored nothing
    stored = [key for key in page.evaluate("Object.keys(localStorage)") if key.startswith("training_health.view.")]
    assert len(stored) == 1  # of this log folder
    assert len(stored[0].removeprefix("training_health.view.")) == 12
    for shown in (frame, elsewhere):
        assert shown.locator("#chips .chip-name").all_inner_texts() == [DYING]
        shown.locator("#site").wait_for()
        assert shown.locator("#site").input_value() == "conv1"


def test_colours_of_a_run_match_between_charts(tab):
    _, frame = tab
    pick_only(frame, STEADY, DYING)
    chip = frame.locator(f'#chips .chip[title="{DYING}"] .look').evaluate("e => getComputedStyle(e).color")
    of_dying = "plot.data.find(t => t.name.includes('dying')).line.color"
    dead, gap = drawn(frame, "dead_units_total", of_dying), drawn(frame, "gap_accuracy", of_dying)
    assert dead == gap
    assert chip == "rgb({}, {}, {})".format(*(int(dead[i : i + 2], 16) for i in (1, 3, 5)))


def test_printing_the_tab_draws_every_chart_in_light_colours_at_the_sheets_width(tab):
    page, frame = tab
    pick_only(frame, STEADY)
    page.evaluate("document.body.classList.add('dark-mode')")
    frame.locator("html[data-theme=dark]").wait_for(state="attached")
    drawn(frame, "gap_accuracy", "true")
    printed = frame.locator("body").evaluate(
        """() => new Promise((done) => {
          window.print = () => {
            dispatchEvent(new Event("beforeprint"));
            const plots = [...document.querySelectorAll(".plot")];
            const { theme } = document.documentElement.dataset;
            const widths = new Set(plots.map((plot) => plot.querySelector(".main-svg").clientWidth - plot.clientWidth));
            done([plots.length > 5 && plots.every((p) => p.dataset.drawn), theme, main.clientWidth, [...widths]]);
            dispatchEvent(new Event("afterprint"));
          };
          [...document.querySelectorAll("#bar button")].find((button) => button.textContent === "Print").click();
        })"""
    )
    assert printed == [True, "light", 680, [0]]  # 180 mm
    assert frame.locator("html").get_attribute("data-theme") == "dark"
    page.evaluate("document.body.classList.remove('dark-mode')")
    frame.locator("html[data-theme=light]").wait_for(state="attached")


def test_a_reload_while_training_brings_the_new_epoch_and_keeps_what_the_reader_did(tab, served):
    page, frame = tab

    def reload_until(seen) -> None:
        def attempt() -> bool:
            page.locator("app-header-reload button").evaluate("b => b.click()")  # the focus stays where it is
            page.wait_for_timeout(500)
            return seen()

        wait_until(attempt)

    with HealthLogWriter(served[1] / "growing") as log:
        log.text("run", {"max_epochs": 9})
        write_epoch(log, 0, [0.5, 0.5, 0.5, 0.5])
        log.flush()
        reload_until(lambda: frame.locator('#runs tr[data-run="growing"]').count() == 1)
        assert "growing" not in frame.locator("#chips").inner_text()  # no newcomer among what is compared
        pick_only(frame, STEADY, "growing")
        total = frame.locator('[data-chart="dead_units_total"]')
        whole = drawn(frame, "dead_units_total", "plot._fullLayout.xaxis.range")
        box = total.locator(".nsewdrag").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
        page.mouse.up()
        wait_until(lambda: drawn(frame, "dead_units_total", "plot._fullLayout.xaxis.range") != whole)
        zoomed = drawn(frame, "dead_units_total", "plot._fullLayout.xaxis.range")
        total.get_by_role("button", name="as a table").click()
        total.get_by_role("button", name="as CSV").focus()
        frame.locator("body").evaluate(
            "() => { window.shift = 0; new PerformanceObserver((list) => list.getEntries().forEach("
            "(entry) => (window.shift += entry.value))).observe({ type: 'layout-shift' }); }"
        )
        write_epoch(log, 1, [0.0, 0.5, 0.5, 0.5])
        log.flush()
        reload_until(lambda: cells(frame, "growing")[7] == "2 / 9 stalled")  # its records carry times of long ago
        assert cells(frame, "growing")[3] == "16.7%"
        wait_until(lambda: total.locator(".table-alternative tbody tr").count() == 5)
        assert drawn(frame, "dead_units_total", "plot.data.find(t => t.name === 'growing, dead').y.length") == 2
        assert drawn(frame, "dead_units_total", "plot._fullLayout.xaxis.range") == zoomed
        assert total.get_by_role("button", name="as CSV").evaluate("e => e === document.activeElement")
        assert frame.locator("body").evaluate("() => window.shift") < 0.02


def test_the_theme_follows_tensorboards(tab):
    page, frame = tab
    pick_only(frame, STEADY)
    before = drawn(frame, "gap_accuracy", "plot._fullLayout.font.color")
    page.evaluate("document.body.classList.add('dark-mode')")
    frame.locator("html[data-theme=dark]").wait_for(state="attached")
    assert frame.locator("body").evaluate("b => getComputedStyle(b).backgroundColor") == "rgb(28, 30, 34)"
    frame.locator('[data-chart="gap_accuracy"] .plot[data-drawn]').wait_for()
    assert (before, drawn(frame, "gap_accuracy", "plot._fullLayout.font.color")) == ("#1b2430", "#eef1f5")
    page.evaluate("document.body.classList.remove('dark-mode')")
    frame.locator("html[data-theme=light]").wait_for(state="attached")


def test_charts_can_be_downloaded(tab):
    page, frame = tab
    pick_only(frame, DYING)
    show_site(frame, "fc1")
    card = frame.locator('[data-chart="dead_units_fc1"]')
    with page.expect_download() as csv:
        card.get_by_role("button", name="as CSV").click()
    lines = csv.value.path().read_text().splitlines()
    assert csv.value.suggested_filename == "dead_units_fc1.csv"
    assert lines[0] == "run,site,epoch,n,units,dead,dead_fraction,rare,rare_fraction,not_a_number,deaths,revivals"
    assert lines[1] == "dying/version_0,fc1,1,5000,4,1,0.25,0,0,0,0,0"
    with page.expect_download() as png:
        card.get_by_role("button", name="as PNG").click()
    assert png.value.suggested_filename == "dead_units_fc1.png"
    assert png.value.path().read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_controls_work_from_the_keyboard_and_keep_the_focus(tab):
    page, frame = tab
    frame.get_by_role("button", name="Pick none").focus()
    page.keyboard.press("Enter")
    frame.locator(f'[data-pick="{STEADY}"]').focus()
    page.keyboard.press("Space")
    frame.locator("#chips .chip").wait_for()
    assert frame.locator(f'[data-pick="{STEADY}"]').evaluate("e => e === document.activeElement && e.checked")
    frame.locator('[data-sort="verdict"]').focus()
    page.keyboard.press("Enter")
    assert frame.locator('[data-sort="verdict"]').evaluate("e => e === document.activeElement")
    assert frame.locator("th[aria-sort=ascending]").inner_text().startswith("Verdict")


@pytest.mark.parametrize("width", [390, 700, 2500])
def test_nothing_sticks_out_sideways(tab, width):
    page, frame = tab
    frame.get_by_role("button", name="Pick all shown").click()
    page.set_viewport_size({"width": width, "height": 900})
    drawn(frame, "gap_accuracy", "true")
    assert frame.locator("html").evaluate("e => e.scrollWidth <= e.clientWidth")


@pytest.mark.parametrize("load_fast", ["true", "false"], ids=["rust_loader", "python_loader"])
def test_twenty_runs_of_a_hundred_epochs_are_painted_quickly(load_fast, tmp_path, open_page):
    for run in range(20):
        with HealthLogWriter(tmp_path / f"run_{run}") as log:
            for epoch in range(100):
                write_epoch(log, epoch, [0.5] * 256)
    for address in serve_pages(open_page, tmp_path, load_fast):
        _, frame = open_tab(open_page, address, least_rows=20)
        mark = "performance.getEntriesByName('training-health-table')[0].startTime"
        assert {text for text in frame.locator("#runs td.epochs").all_inner_texts()} == {"100"}
        assert frame.locator("body").evaluate(f"() => {mark}") < 3000  # under 1 s on a quiet machine


def test_the_dead_units_are_listed_by_number_and_can_be_copied(tab):
    page, frame = tab
    pick_only(frame, STEADY, DYING)
    listed = frame.locator("[data-list=dead]")
    assert "None of 6 units is dead at epoch 3" in listed.inner_text()
    assert "2 of 6 units (33.3%) are dead at epoch 3, n = 5,000: fc1 2 of 4" in listed.inner_text()
    rows = [row.locator("td").all_inner_texts() for row in listed.locator("tbody tr").all()]
    assert rows == [
        ["fc1", "1", "1", "epoch 3", "never", "killed, 0.3 sd below 0"],
        ["fc1", "1", "3", "before the first step", "never", "mean shift, 0.5 sd below 0"],
    ]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    listed.get_by_role("button", name="Copy, one line per unit").click()
    listed.get_by_text("Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    assert copied[2].split("\t") == ["fc1", "3", "before the first step", "0", "mean shift", "0.5"]
    show_map(frame)
    states = [(row["unit"], row["state"], row["times_revived"]) for row in table_of(frame, DYING_MAP)]
    assert states == [("3", "dead", "0"), ("1", "dead", "0"), ("2", "alive", "1"), ("0", "alive", "0")]


def test_the_worst_run_comes_first_and_a_verdict_leads_to_its_findings(tab):
    _, frame = tab
    pick_only(frame, STEADY, DYING)
    assert [card.get_attribute("data-run") for card in frame.locator("#findings article").all()] == [DYING, STEADY]
    assert "killed, or waiting" in frame.locator(f'#findings article[data-run="{DYING}"]').inner_text()
    assert "8.7 standard errors from 0" in frame.locator(f'#findings article[data-run="{STEADY}"]').inner_text()
    frame.locator(f'#runs tr[data-run="{BROKEN}"] td.verdict button').click()  # it was not picked
    broken = frame.locator(f'#findings article[data-run="{BROKEN}"]')
    wait_until(lambda: broken.evaluate("e => e === document.activeElement"))
    frame.locator(f'#runs tr[data-run="{DYING}"] td.dead button').click()
    wait_until(
        lambda: frame.locator("details[data-fold^='dead dying'] summary").evaluate("e => e === document.activeElement")
    )


def test_new_alarms_are_counted_in_the_windows_title_while_nobody_looks(tab, served):
    page, _ = tab
    page.locator("[role=tab]:visible", has_text="Scalars").click()
    page.wait_for_function("location.hash.startsWith('#scalars')")
    with HealthLogWriter(served[1] / "alarming") as log:
        for epoch in range(3):
            log.activity(epoch, "fc1", 0, [0.0, 0.0, 0.0, 0.0], n=5000)
        log.flush()

        def counted() -> bool:
            page.locator("app-header-reload button").evaluate("button => button.click()")
            page.wait_for_timeout(500)
            return page.title() == "(1) TensorBoard"

        wait_until(counted)
    page.locator("[role=tab]:visible", has_text="Training Health").click()
    page.wait_for_function("document.title === 'TensorBoard'")


def test_a_run_that_may_have_just_begun_is_not_called_one_without_monitors(tmp_path, open_page):
    now = time.time()
    for run, began, tag in [
        ("logs/begun", now - 60, "train/loss"),
        ("logs/first_epoch_over", now - 60, "val/loss"),
        ("logs/foreign", now - 7200, "val/loss"),
        ("logs/foreign_old", now - 7200, "train/loss"),
        ("logs/empty", now - 7200, "hp_metric"),
        ("alone/begun", now - 60, "train/loss"),
    ]:
        with HealthLogWriter(tmp_path / run, wall_time=began) as log:
            log.scalar(tag, 9, 0.5)
    with HealthLogWriter(tmp_path / "logs/watched", wall_time=now - 60) as log:
        log.text("run", {"max_epochs": 3})
    for address in serve_pages(open_page, tmp_path / "logs"):
        _, frame = open_tab(open_page, address)
        words = {
            run: cells(frame, run)[2].split(":")[0] for run in ("begun", "first_epoch_over", "foreign", "foreign_old")
        }
        assert words == {
            "begun": "No training-health record yet",
            "first_epoch_over": "No training-health record yet",
            "foreign": "No monitors",
            "foreign_old": "No monitors",
        }
        assert cells(frame, "empty")[2].startswith("Nothing measured yet")
        assert cells(frame, "watched")[2].endswith("No epoch yet")
        assert "0 / 3 running" in cells(frame, "watched")
    for address in serve_pages(open_page, tmp_path / "alone"):
        page = open_page(address)
        page.route("**/favicon.ico", lambda route: route.fulfill(body=""))  # TensorBoard has none at the top

        def seen(page=page, address=address) -> bool:
            page.goto(f"{address}data/plugin_entry.html?name=training_health")
            return "1 run here; it may have just begun" in page.locator(".empty").inner_text()

        wait_until(seen)


def test_one_malformed_record_leaves_all_other_runs_on_the_page(tmp_path, open_page):
    write_known_logs(tmp_path)
    with HealthLogWriter(tmp_path / "malformed") as log:
        log.activity(0, "fc1", 0, [0.0, 0.5])
        record = tensor_record("gap", "gap", [0, 1.0], columns=["val_accuracy"])
        record.value[0].tensor.dtype = 99  # there is no such type
        log.add(99, record)
    for address in serve_pages(open_page, tmp_path):
        _, frame = open_tab(open_page, address, least_rows=7)
        assert cells(frame, STEADY)[4] == "+7.0 ± 1.6 real"
        assert cells(frame, "malformed")[1] == "malformed (partly unreadable)"
        pick_only(frame, "malformed")
        assert "gap can't be shown" in frame.locator('article[data-run="malformed"]').inner_text()
        assert [row["dead"] for row in table_of(frame, "dead_units_fc1")] == ["1"]
