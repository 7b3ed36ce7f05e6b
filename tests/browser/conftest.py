"""Debian's Chromium, with an eye on everything a page should not do."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--no-first-run"]
FLAGS += [f"--disable-{name}" for name in ("gpu", "quic", "background-networking", "component-update", "sync")]
RECORD_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(event.violatedDirective + " " + event.blockedURI);
});
"""


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; the test is skipped where it or Playwright is missing."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class Watched:
    """A page that notes everything it should not do."""

    page: object
    origin: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.add_init_script(RECORD_VIOLATIONS)
        self.page.on("console", lambda m: self.complaints.append(f"console: {m.text}") if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}") or dialog.dismiss())
        self.page.on("popup", lambda popup: self.complaints.append(f"popup: {popup.url}"))
        self.page.on("request", self._request)

    def _request(self, request) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.complaints.append(f"outside request: {request.url}")

    def note_violations(self) -> None:
        for frame in [] if self.page.is_closed() else self.page.frames:
            self.complaints += [f"policy: {violation}" for violation in frame.evaluate("window.violations ?? []")]

    def check(self) -> None:
        self.note_violations()
        complaints, self.complaints = self.complaints, []
        assert complaints == []


@pytest.fixture(scope="module")
def open_page(browser):
    """Opens pages, each in a fresh profile, so that nothing stored leaks from one to the next."""
    opened: list[Watched] = []

    def open_it(origin: str, **options):
        page = browser.new_context(**{"viewport": {"width": 1400, "height": 900}} | options).new_page()
        page.set_default_timeout(120_000)  # a slow machine takes Playwright's 30 seconds
        opened.append(Watched(page, origin))
        return page

    open_it.opened = opened
    yield open_it
    for watched in opened:
        watched.page.context.close()


@pytest.fixture(autouse=True)
def no_complaints(open_page):
    """After each test, none of the pages that are open may have done what it should not."""
    yield
    for watched in open_page.opened:
        watched.check()


def serve_pages(open_page, logdir: Path, load_fast: str = "true") -> Iterator[str]:
    """As `serve`, and closes its pages before it ends: what they still ask for would otherwise be a failed request."""
    for address in serve(logdir, load_fast):
        yield address
        for watched in open_page.opened:
            if watched.origin == address:
                watched.note_violations()
                watched.page.context.close()


def serve(logdir: Path, load_fast: str) -> Iterator[str]:
    """TensorBoard on a free port; yields its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0"]
    command += ["--load_fast", load_fast, "--reload_interval", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        printed = ""
        for line in process.stderr:
            printed += line
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                yield found.group(0)
                break
        else:
            pytest.fail(f"TensorBoard did not start:\n{printed}")
    finally:
        process.terminate()
        process.communicate(timeout=20)  # reads on: its last words at a closed pipe can keep it from ending
