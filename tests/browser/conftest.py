"""Debian's Chromium, with an eye on everything a page should not do."""

import shutil
from dataclasses import dataclass, field

import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
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
        self.page.on("dialog", self._dialog)
        self.page.on("request", self._request)

    def _dialog(self, dialog) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.complaints.append(f"outside request: {request.url}")

    def check(self) -> None:
        for frame in self.page.frames:
            self.complaints += [f"policy: {violation}" for violation in frame.evaluate("window.violations ?? []")]
        complaints, self.complaints = self.complaints, []
        assert complaints == []


@pytest.fixture(scope="module")
def open_page(browser):
    """Opens pages, each in a fresh profile, so that nothing stored leaks from one to the next."""
    opened: list[Watched] = []

    def open_it(origin: str, **options) -> Watched:
        context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}} | options)
        opened.append(Watched(context.new_page(), origin))
        return opened[-1]

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
