"""Takes the tab's screenshots: ``python -m tests.browser.screenshots lightning_logs screenshots``.

Writes ``light.png``, ``dark.png`` (the tab in TensorBoard), ``phone.png``, ``report.png`` and the report itself.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser.conftest import FLAGS
from tests.browser.tensorboard_process import serve
from training_health.tab.report import write_report

TENSORBOARDS_BAR = 64  # pixels above the tab
HIGHEST = 16_000  # near the largest picture that Chromium takes


def main() -> None:
    """Takes them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logdir", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    report = arguments.folder / "report.html"
    write_report(arguments.logdir, report)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        take(browser, report.absolute().as_uri(), "light", 1440, arguments.folder / "report.png")
        for address in serve(arguments.logdir, "false"):
            for name, theme, width in (("light", "light", 1440), ("dark", "dark", 1440), ("phone", "light", 390)):
                take(browser, f"{address}#training_health", theme, width, arguments.folder / f"{name}.png")
        browser.close()


def take(browser: Browser, address: str, theme: str, width: int, output: Path) -> None:
    """Makes the window as high as the page, so that every chart is in view, waits for the charts, and shoots."""
    page = browser.new_page(viewport={"width": width, "height": 900}, bypass_csp=True)  # to evaluate the waits
    page.add_init_script(f"localStorage.setItem('_tb_global_settings', JSON.stringify({{theme: '{theme}'}}))")
    page.goto(address)
    page.wait_for_function("document.body.dataset.ready || document.querySelector('iframe[src*=training_health]')")
    frame = next((frame for frame in page.frames if "plugin_entry" in frame.url), page.main_frame)
    frame.wait_for_selector("body[data-ready]")
    height = frame.evaluate("document.documentElement.scrollHeight") + TENSORBOARDS_BAR
    page.set_viewport_size({"width": width, "height": min(height, HIGHEST)})
    frame.wait_for_function("!document.querySelector('.plot:not([data-drawn])')")
    page.wait_for_timeout(500)  # fonts and Plotly's last layout pass
    page.screenshot(path=output)
    page.close()
    print(output)


if __name__ == "__main__":
    main()
