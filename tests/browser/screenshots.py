"""Takes the tab's screenshots: ``python -m tests.browser.screenshots lightning_logs screenshots``.

Writes ``light.png``, ``dark.png`` (the tab in TensorBoard), ``phone.png``, ``report.png`` and the report itself.
"""

import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.browser.conftest import CHROMIUM, FLAGS, serve
from training_health.tab.one_file import write_report


def main(logdir: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_report(logdir, folder / "report.html")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        take(browser, (folder / "report.html").absolute().as_uri(), "light", 1440, folder / "report.png")
        for address in serve(logdir, "false"):
            for name, theme, width in (("light", "light", 1440), ("dark", "dark", 1440), ("phone", "light", 390)):
                take(browser, f"{address}#training_health", theme, width, folder / f"{name}.png")
        browser.close()


def take(browser: Browser, address: str, theme: str, width: int, output: Path) -> None:
    """Makes the window as high as the page, so that every chart is in view, waits for the charts, and shoots."""
    page = browser.new_page(viewport={"width": width, "height": 900}, bypass_csp=True)  # to evaluate the waits
    page.add_init_script(f"localStorage.setItem('_tb_global_settings', JSON.stringify({{theme: '{theme}'}}))")
    page.goto(address)
    page.wait_for_function("document.body.dataset.ready || document.querySelector('iframe[src*=training_health]')")
    frame = next((frame for frame in page.frames if "plugin_entry" in frame.url), page.main_frame)
    frame.wait_for_selector("body[data-ready]")
    height = frame.evaluate("document.documentElement.scrollHeight") + 64  # TensorBoard's bar
    page.set_viewport_size({"width": width, "height": min(height, 16_000)})  # near Chromium's largest picture
    frame.wait_for_function("!document.querySelector('.plot:not([data-drawn])')")
    page.wait_for_timeout(500)  # fonts and Plotly's last layout pass
    page.screenshot(path=output)
    page.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
