"""The pages under axe-core's rules: WCAG 2.2 AA and best practices, in both themes."""

import pytest

from fmnist_pl.search.report import write_report as write_search_report
from tests.browser.conftest import serve_pages
from tests.browser.known_log import DYING, STEADY, write_known_logs
from tests.browser.studies import hostile_study
from tests.browser.test_tab import drawn, open_tab, pick_only, show_map
from training_health.tab.one_file import write_report

AXE = pytest.importorskip("axe_playwright_python.base", reason="needs axe-playwright-python").AXE_SCRIPT
pytestmark = [pytest.mark.browser, pytest.mark.slow]

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LINE_CONTRAST = """() => [...document.querySelectorAll('.plot[data-drawn]')].flatMap(plot => plot.data
  .filter(trace => trace.line?.color?.startsWith('#') && trace.line.width !== 0)
  .map(trace => [trace.line.color, trace.opacity ?? 1]))"""


def violations(frame) -> list[str]:
    """What axe finds wrong, one line per element."""
    frame.evaluate(AXE)
    found = frame.evaluate("rules => axe.run(document, {runOnly: rules, iframes: false})", RULES)["violations"]
    return [f"{one['id']}: {node['target']} {node['failureSummary']}" for one in found for node in one["nodes"]]


def contrast(one: str, other: str, opacity: float = 1.0) -> float:
    """WCAG's contrast ratio of a colour at some opacity on another."""

    def luminance(channels) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    front, back = ([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in (one, other))
    mixed = [opacity * f + (1 - opacity) * b for f, b in zip(front, back, strict=True)]
    low, high = sorted((luminance(mixed), luminance(back)))
    return (high + 0.05) / (low + 0.05)


def check_page(frame, surface: str) -> None:
    assert violations(frame) == []
    lines = frame.evaluate(LINE_CONTRAST)
    assert lines
    assert min(contrast(colour, surface, opacity) for colour, opacity in lines) >= 3


def test_the_tab(tmp_path, open_page):
    write_known_logs(tmp_path)
    for address in serve_pages(open_page, tmp_path):
        page, frame = open_tab(open_page, address)
        (document,) = [frame for frame in page.frames if "plugin_entry" in frame.url]
        frame.locator("#runs").wait_for()
        show_map(frame)
        frame.locator('[data-pick="steady/version_0"]').check()
        for theme, surface in (("light", "#ffffff"), ("dark", "#26292e")):
            page.evaluate("dark => document.body.classList.toggle('dark-mode', dark)", theme == "dark")
            frame.locator(f"html[data-theme={theme}]").wait_for(state="attached")
            maps = (f"unit_map_{DYING}_fc1", f"update_ratio_{STEADY}", f"filters_{STEADY}_conv1", f"examples_{STEADY}")
            for chart in ("dead_units_total", "gap_accuracy", *maps):
                drawn(frame, chart, "true")
            check_page(document, surface)


@pytest.mark.parametrize(("theme", "surface"), [("light", "#ffffff"), ("dark", "#26292e")])
def test_the_report(tmp_path, open_page, theme, surface):
    write_known_logs(tmp_path / "logs")
    write_report(tmp_path / "logs", tmp_path / "report.html")
    page = open_page("file://", color_scheme=theme)
    page.goto((tmp_path / "report.html").as_uri())
    page.locator("body[data-ready]").wait_for()
    pick_only(page, DYING, STEADY)
    for chart in ("dead_units_total", "gap_accuracy"):
        drawn(page, chart, "true")
    page.locator('[data-chart="gap_accuracy"]').get_by_role("button", name="as a table").click()
    check_page(page, surface)


def test_the_searchs_report(tmp_path, open_page):
    write_search_report(hostile_study(), tmp_path, None)
    page = open_page("file://")
    page.goto((tmp_path / "report.html").as_uri())
    page.locator("figure .main-svg").last.wait_for()
    assert violations(page) == []
