"""Make the picture of the dashboard, from a service that is running.

::

    senoscope demo --no-browser &
    python docs/make/dashboard_picture.py http://127.0.0.1:8750 24

Opens the page in Chromium, waits until so many fields of view are on it and the one that is shown is called
senescent, and writes ``docs/images/dashboard.png``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

IMAGE = Path(__file__).parents[1] / "images" / "dashboard.png"
SIZE = {"width": 1280, "height": 800}
PATIENCE_MS = 300_000
SHOWN = """
wanted => parseInt(document.querySelector("#progress").innerText.replaceAll(",", "")) >= wanted
  && document.querySelector("#label").innerText.includes("senescent")
"""


def main(url: str, wanted: int) -> None:
    """Watch until the map is filled, then take the picture."""
    with sync_playwright() as playwright:
        # Playwright brings no browser; this is the system's.
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page(viewport=SIZE)
        page.goto(url)
        page.wait_for_function(SHOWN, arg=wanted, timeout=PATIENCE_MS)
        page.screenshot(path=IMAGE)
        browser.close()
    print(IMAGE)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
