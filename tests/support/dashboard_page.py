"""The dashboard in Chromium, operated by Playwright, with a real service."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
# Without Chromium's own requests to external hosts, which a machine without a network refuses.
_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # One process draws all pages of a context: starting one takes as much CPU as opening the dashboard.
    "--renderer-process-limit=1",
)
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 5.0, 100.0


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's browser; none is installed with Playwright."""
    program = shutil.which("chromium")
    assert program is not None, "needs the program chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_OPTIONS])
        yield browser
        browser.close()


@dataclass
class Seat:
    """A page, with its errors.

    Attributes
    ----------
    pictures : Path or None
        A second folder for screenshots.
    errors : list of str
        Exceptions, and violations of the page's security policy.
    """

    page: Page
    pictures: Path | None = None
    errors: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def until(self, condition: Callable[[], object], timeout_s: float = 90, what: str = "") -> None:
        """Wait until a condition holds."""
        deadline, pause_ms = time.monotonic() + timeout_s, _FIRST_PAUSE_MS
        while not condition():
            assert time.monotonic() < deadline, what or self.text("body")
            self.page.wait_for_timeout(pause_ms)
            pause_ms = min(1.4 * pause_ms, _LONGEST_PAUSE_MS)  # polling takes CPU time from the page

    def drawn(self) -> None:
        """Return when the page has drawn all earlier changes."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def shoot(self, name: str) -> Path:
        """Save a screenshot."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        if self.pictures is not None:
            shutil.copy(path, self.pictures / path.name)
        return path

    def received(self, results: int) -> bool:
        """Return whether this many results of the stream were received live; at most 120 are counted."""
        label = self.page.locator("#spark").get_attribute("aria-label") or ""
        return label.startswith(f"Latency of the latest {results} results")

    def seen(self) -> int:
        """Return how many fields of view the shown series has on the page."""
        progress = self.text("#progress")
        return int(progress.split()[0].replace(",", "")) if progress[:1].isdigit() else 0


def sit_down(page: Page, url: str) -> Seat:
    """Open the dashboard on a new page, which the caller closes."""
    page.set_default_timeout(60_000)
    seat = Seat(page)
    page.on("pageerror", lambda error: seat.errors.append(f"{error}\n{error.stack or ''}"))
    page.on(
        "console",
        lambda message: (
            seat.errors.append(message.text)
            if message.type == "error"
            and not message.text.startswith(("Failed to load", "WebSocket connection"))
            else None
        ),
    )
    page.goto(url)
    return seat
