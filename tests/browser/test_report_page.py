"""The report in a real browser, from a file: no server, no network."""

import pytest

from tests.browser.known_log import DYING, HOSTILE, STEADY, write_known_logs
from tests.browser.test_tab import drawn, pick_only, wait_until
from training_health.tab.one_file import write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]


# Timers of one delay fire in the order they were set: `later` is true from the next task on.
NOTE_THE_TASK_OF_THE_FIRST_CHART = """
let plotly;
Object.defineProperty(window, "Plotly", { get: () => plotly, set: (value) => {
  let later = false;
  setTimeout(() => (later = true));
  const { react } = plotly = value;
  value.react = (...chart) => {
    window.drawnIn ??= later ? "a later task" : "the task that starts it";
    return react(...chart);
  };
} });
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Address of the report."""
    tmp_path = tmp_path_factory.mktemp("report")
    write_known_logs(tmp_path / "logs")
    write_report(tmp_path / "logs", tmp_path / "report.html")
    return (tmp_path / "report.html").as_uri()


@pytest.fixture(scope="module")
def report(written, open_page):
    page = open_page("file://")
    page.goto(written)
    page.locator("body[data-ready]").wait_for()
    return page


def test_plotly_has_few_traces_and_its_start_and_the_first_chart_are_two_tasks(written, open_page):
    page = open_page(
        "file://", viewport={"width": 1280, "height": 4000}
    )  # the chart waits for plotly, not for a reader
    page.add_init_script(NOTE_THE_TASK_OF_THE_FIRST_CHART)
    page.goto(written)
    page.locator(".plot[data-drawn]").first.wait_for()
    assert page.evaluate("window.drawnIn") == "a later task"
    assert page.evaluate("Object.keys(Plotly.PlotSchema.get().traces).sort()") == ["heatmap", "image", "scatter"]


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
    if chart.startswith("unit_map"):
        report.locator("select").select_option("fc1")
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


def test_a_zoom_is_of_one_chart_and_its_reset_survives_a_redrawing(report):
    report.reload()
    report.locator("body[data-ready]").wait_for()
    pick_only(report, STEADY, DYING)
    zoomed, other = f"accuracy_{STEADY}", f"accuracy_{DYING}"
    axis = "[...plot._fullLayout.yaxis.range]"
    whole = drawn(report, other, axis)
    assert drawn(report, zoomed, axis) == whole
    box = report.locator(f'[data-chart="{zoomed}"] .nsewdrag').bounding_box()
    report.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    report.mouse.down()
    report.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    report.mouse.up()
    wait_until(lambda: drawn(report, zoomed, axis) != whole)
    theme = report.locator("html").get_attribute("data-theme")
    report.get_by_role("button", name="Light / dark").click()
    report.locator(f"html:not([data-theme={theme}])").wait_for(state="attached")
    assert drawn(report, other, axis) == whole
    report.locator(f'[data-chart="{zoomed}"] [data-title="Reset axes"]').evaluate("button => button.click()")
    wait_until(lambda: drawn(report, zoomed, axis) == whole)


def test_a_reload_far_down_the_page_fills_all_of_it(report):
    pick_only(report, STEADY, DYING)
    report.evaluate("scrollTo(0, document.body.scrollHeight)")  # the browser comes back there while the page grows
    report.reload()
    wait_until(lambda: report.locator("body[data-ready]").count() or report.locator("#notice:not([hidden])").count())
    assert report.locator("#notice").text_content() == ""
    assert report.locator("#weights .plot").count() > 0


def test_a_charts_tools_are_one_stop_of_the_tab_key(report):
    report.reload()
    report.locator("body[data-ready]").wait_for()
    report.get_by_role("button", name="Pick all shown").click()
    tools = report.locator('[data-chart="gap_accuracy"] .tool')
    drawn(report, "gap_accuracy", "true")
    tools.first.focus()
    report.keyboard.press("ArrowRight")
    assert tools.nth(1).evaluate("e => e === document.activeElement")
    assert [tool.get_attribute("tabindex") for tool in tools.all()] == ["-1", "0", "-1"]
    report.keyboard.press("Tab")
    assert report.evaluate("!document.activeElement.closest('[data-chart=gap_accuracy]')")


def test_a_printed_report_has_every_chart_in_light_colours_and_nothing_cut_off(report):
    report.emulate_media(color_scheme="dark")
    report.reload()
    report.locator("html[data-theme=dark] body[data-ready]").wait_for()
    drawn(report, "gap_accuracy", "true")  # the others have never been in view
    seen = """() => addEventListener("beforeprint", () => {
      const plots = [...document.querySelectorAll(".plot")];
      window.printed = {
        drawn: plots.length > 3 && plots.every((plot) => plot.dataset.drawn),
        widths: [...new Set(plots.map((plot) => plot.querySelector(".main-svg").clientWidth - plot.clientWidth))],
        page: document.querySelector("main").clientWidth,
        text: plots[0]._fullLayout.font.color,
      };
    })"""
    report.evaluate(seen)
    report.pdf()
    printed = report.evaluate("window.printed")
    assert (printed["drawn"], printed["widths"], printed["page"]) == (True, [0], 680)  # 180 mm
    assert printed["text"] == "#1b2430"  # of the light theme
    assert report.evaluate(
        "[document.documentElement.dataset.theme, document.querySelector('.plot').clientWidth > 680]"
    ) == ["dark", True]


def test_on_paper_maps_and_their_keys_have_the_light_themes_colours(report):
    report.emulate_media(color_scheme="dark")
    report.reload()
    report.locator("html[data-theme=dark] body[data-ready]").wait_for()
    pick_only(report, DYING)
    drawn(report, f"sites_dead_{DYING}", "true")
    colours = """() => {
      const map = document.querySelector("[data-chart^=sites_dead] .plot");
      const { backgroundImage } = getComputedStyle(document.querySelector(".key-gradient"));
      return [map.data[0].colorscale[0][1], backgroundImage.match(/rgb.*?\\)/)[0]];
    }"""
    assert report.evaluate(colours) == ["#5a3a22", "rgb(90, 58, 34)"]
    report.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert report.evaluate(colours) == ["#ffe3cc", "rgb(255, 227, 204)"]
    report.evaluate("dispatchEvent(new Event('afterprint'))")
    assert report.evaluate(colours) == ["#5a3a22", "rgb(90, 58, 34)"]
