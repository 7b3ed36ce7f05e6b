"""How smooth the page is in Chromium, 1280 x 800: ``python -m tests.browser.figures lightning_logs [ROUNDS]``.

Opens the tab and the report of the logs, each ROUNDS times in a fresh profile, and scrolls to the end. Then a copy of
the logs grows, the largest event file by what was cut off its end, and the tab reloads each time. For each figure it
prints the median, the range and n. The first paint counts from the beginning of the page's own document.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.browser.conftest import CHROMIUM, FLAGS, serve
from training_health.errors import UserError
from training_health.tab.one_file import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Frame

ROUNDS = 5
PLUGIN = "data/plugin/training_health/"
# Chromium reports tasks from 50 ms on; "self": of this document, not of TensorBoard's
WATCH = """
window.watched = { tasks: [0], shift: 0 };
const watch = (type, note) => new PerformanceObserver((list) => list.getEntries().forEach(note)).observe({ type });
watch("longtask", ({ name, duration }) => name === "self" && watched.tasks.push(duration));
watch("layout-shift", ({ value }) => (watched.shift += value));
"""
LONGEST_TASK = "() => Math.max(...watched.tasks.splice(0, watched.tasks.length, 0))"
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
AT_THE_END = "scrollY + innerHeight >= document.documentElement.scrollHeight - 1"
ALL_DRAWN = "!document.querySelector('.plot:not([data-drawn])')"


def main(logdir: Path, rounds: int) -> None:
    """Prints the figures, or why there are none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return print("Skipped: needs Playwright (pip install playwright).")
    if CHROMIUM is None:
        return print("Skipped: needs Chromium (apt-get install chromium).")
    figures = defaultdict(list)
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        report, copy = Path(folder) / "report.html", Path(folder) / "logs"
        write_report(logdir, report)
        for _ in range(rounds):
            look_through(open_page(browser, report.as_uri()), "report", figures)
        for address in serve(logdir, "true"):
            wait_for_all_runs(address)
            for _ in range(rounds):
                look_through(open_page(browser, f"{address}#training_health"), "tab", figures)
        run, file, rest = cut_the_largest(logdir, copy)
        for address in serve(copy, "true"):
            wait_for_all_runs(address)
            view = json.dumps({"runs": [run]})
            reload(
                open_page(browser, f"{address}#training_health&p.training_health.view={view}"),
                file,
                rest,
                figures,
                rounds,
            )
        browser.close()
    for name, values in figures.items():
        print(f"{name}: {median(values):.3g} ({min(values):.3g} to {max(values):.3g}, n = {len(values)})")


def open_page(browser: "Browser", address: str) -> "Frame":
    """The page's own document once it is filled, in a fresh profile."""
    page = browser.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True).new_page()
    page.add_init_script(WATCH)
    page.goto(address)
    in_tensorboard = "#" in address
    frame = "iframe[src*=training_health]"
    document = page.wait_for_selector(frame).content_frame() if in_tensorboard else page.main_frame
    document.wait_for_selector("body[data-ready]")
    return document


def look_through(document: "Frame", of: str, figures: dict[str, list[float]]) -> None:
    """Scrolls to the end as a reader does, until all is drawn; closes the page."""
    document.wait_for_timeout(1000)  # what the page does when it is idle
    figures[f"{of}: first paint, ms"].append(document.evaluate(FIRST_PAINT))
    figures[f"{of}: longest task while it loads, ms"].append(document.evaluate(LONGEST_TASK))
    while not document.evaluate(f"(scrollBy(0, 400), {AT_THE_END} && {ALL_DRAWN})"):
        document.wait_for_timeout(100)
    figures[f"{of}: longest task while scrolling, ms"].append(document.evaluate(LONGEST_TASK))
    document.page.context.close()


def reload(document: "Frame", file: Path, rest: bytes, figures: dict[str, list[float]], rounds: int) -> None:
    """Reloads in the middle of the page, each time with more of the log."""
    page = document.page
    document.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
    document.wait_for_timeout(2000)
    piece = -(-len(rest) // rounds)
    for start in range(0, len(rest), piece):
        before = document.evaluate("[watched.shift, Number(document.body.dataset.ready)]")
        with file.open("ab") as log:
            log.write(rest[start : start + piece])
        page.wait_for_timeout(2500)  # TensorBoard reads each second
        page.locator("app-header-reload button").evaluate("button => button.click()")
        document.wait_for_function(f"Number(document.body.dataset.ready) > {before[1]}")
        page.wait_for_timeout(1000)
        figures["tab: layout shift of a reload with new records"].append(document.evaluate("watched.shift") - before[0])


def wait_for_all_runs(address: str) -> None:
    """TensorBoard answers before it has read the logs: waits until two answers a second apart are the same."""
    known, last = overview(address), None
    while not known["runs"] or known != last:
        time.sleep(1)
        known, last = overview(address), known


def overview(address: str) -> dict:
    with urllib.request.urlopen(f"{address}{PLUGIN}overview") as answer:
        return {key: value for key, value in json.load(answer).items() if key != "now"}


def cut_the_largest(logdir: Path, copy: Path) -> tuple[str, Path, bytes]:
    """Copies the event files; returns the run of the largest one, that one, and its last two fifths, cut off."""
    shutil.copytree(logdir, copy, ignore=lambda folder, names: [
        name for name in names if "tfevents" not in name and not (Path(folder) / name).is_dir()
    ])  # fmt: skip
    file = max(copy.rglob("*tfevents*"), key=lambda path: path.stat().st_size)
    content = file.read_bytes()
    kept = len(content) * 3 // 5
    file.write_bytes(content[:kept])
    return file.parent.relative_to(copy).as_posix(), file, content[kept:]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.browser.figures", description=__doc__.splitlines()[0])
    parser.add_argument("logdir", type=Path)
    parser.add_argument("rounds", type=int, nargs="?", default=ROUNDS)
    try:
        main(**vars(parser.parse_args()))
    except UserError as error:
        sys.exit(f"error: {error}")
