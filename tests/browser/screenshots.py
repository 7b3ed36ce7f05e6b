"""Takes the tab's screenshots: ``python -m tests.browser.screenshots lightning_logs screenshots``.

Writes ``light.png`` and ``dark.png`` (the tab in TensorBoard), ``report.png`` (the HTML report) and the report itself.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Browser, Frame, Page, sync_playwright

from tests.browser.conftest import FLAGS
from tests.browser.tensorboard_process import serve
from training_health.tab.report import write_report

TENSORBOARDS_BAR = 64  # pixels above the tab
HIGHEST = 12_000


def main() -> None:
    """Takes them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=1440)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    report = arguments.folder / "report.html"
    write_report(arguments.logdir, report)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for address in serve(arguments.logdir, "false"):
            for theme in ("light", "dark"):
                take_tab(browser, address, theme, arguments.width, arguments.folder / f"{theme}.png")
        page = browser.new_page(viewport={"width": arguments.width, "height": 900})
        page.goto(report.absolute().as_uri())
        page.locator("body[data-ready]").wait_for()
        take(page, page.main_frame, arguments.width, 0, arguments.folder / "report.png")
        browser.close()


def take_tab(browser: Browser, address: str, theme: str, width: int, output: Path) -> None:
    """The tab from top to bottom, inside TensorBoard."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.add_init_script(f"localStorage.setItem('_tb_global_settings', JSON.stringify({{theme: '{theme}'}}))")
    page.goto(f"{address}#training_health")
    inside = page.frame_locator("iframe[src*='plugin_entry.html?name=training_health']")
    inside.locator("#runs tbody tr").first.wait_for()
    inside.locator("body[data-ready]").wait_for()
    (frame,) = [frame for frame in page.frames if "plugin_entry" in frame.url]
    take(page, frame, width, TENSORBOARDS_BAR, output)
    page.close()


def take(page: Page, frame: Frame, width: int, above: int, output: Path) -> None:
    """Makes the window as high as the page, so that every chart is in view, waits for the charts, and shoots."""
    height = frame.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": width, "height": min(height + above, HIGHEST)})
    frame.wait_for_function("!document.querySelector('.plot:not([data-drawn])')")
    page.wait_for_timeout(500)  # fonts and Plotly's last layout pass
    page.screenshot(path=output)
    print(output)


if __name__ == "__main__":
    main()
