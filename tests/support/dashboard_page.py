"""A person at the dashboard: real Chromium, driven by Playwright, on a real service."""

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
# Chromium's own errands to the outside would be refused here, many at a time.
_OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # One process draws all pages of a context: starting one takes as much CPU as opening the dashboard.
    "--renderer-process-limit=1",
)
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 5.0, 100.0


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's browser; Playwright brings none."""
    program = shutil.which("chromium")
    assert program is not None, "needs the program chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*_OPTIONS])
        yield browser
        browser.close()


@dataclass
class Seat:
    """A page, with what it complained of.

    Attributes
    ----------
    pictures : Path or None
        Where screenshots go besides.
    errors : list of str
        Exceptions, and what the page's security policy forbade.
    """

    page: Page
    pictures: Path | None = None
    errors: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def until(self, condition: Callable[[], object], timeout_s: float = 90, what: str = "") -> None:
        """Wait for something that a person would see sooner or later."""
        deadline, pause_ms = time.monotonic() + timeout_s, _FIRST_PAUSE_MS
        while not condition():
            assert time.monotonic() < deadline, what or self.text("body")
            self.page.wait_for_timeout(pause_ms)
            pause_ms = min(1.4 * pause_ms, _LONGEST_PAUSE_MS)  # asking takes CPU from what is waited for

    def drawn(self) -> None:
        """Return once the page has drawn what was asked for before."""
        self.page.evaluate(
            "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def shoot(self, name: str) -> Path:
        """A screenshot that is kept."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        if self.pictures is not None:
            shutil.copy(path, self.pictures / path.name)
        return path

    def heard(self, results: int) -> bool:
        """Whether so many results of the stream came live; no more than 120 are counted."""
        words = self.page.locator("#spark").get_attribute("aria-label") or ""
        return words.startswith(f"Latency of the latest {results} results")

    def seen(self) -> int:
        """How many fields of view the shown series has on the page."""
        words = self.text("#progress")
        return int(words.split()[0].replace(",", "")) if words[:1].isdigit() else 0


def sit_down(page: Page, url: str) -> Seat:
    """Open the dashboard on a new page, which the caller closes."""
    page.set_default_timeout(60_000)
    seat = Seat(page)
    page.on("pageerror", lambda error: seat.errors.append(f"{error}\n{error.stack or ''}"))
    page.on(
        "console",
        lambda said: (
            seat.errors.append(said.text)
            if said.type == "error" and not said.text.startswith(("Failed to load", "WebSocket connection"))
            else None
        ),
    )
    page.goto(url)
    return seat
