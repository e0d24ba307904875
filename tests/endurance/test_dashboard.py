"""A dashboard that stays open during fast scans: it shows all results, and its memory stays constant."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import CDPSession

from senoscope_client import FramePublisher, Position
from support import miniature as mini
from support.dashboard_page import chromium, sit_down
from support.load import Endurance, percentiles
from support.servers import Server

pytestmark = [pytest.mark.full, pytest.mark.system("chromium")]

RATE_HZ = 20.0

# The delay from each result, by the time in its id, to its display.
NOTE_PICTURES = """async () => {
    const { madeAt } = await import("./dashboard/format.js");
    // To 1/4096 ms: the service writes the fraction into the twelve bits after the version.
    const madeAtExactly = (id) => madeAt(id) + parseInt(id.slice(15, 18), 16) / 4096;
    window.lags = [];
    document.addEventListener("senoscope:painted", ({ detail }) =>
        window.lags.push(performance.timeOrigin + performance.now() - madeAtExactly(detail)));
}"""


def state(cdp: CDPSession) -> tuple[float, float]:
    """Return the memory of the page in MiB after garbage collection, and the number of its DOM nodes."""
    cdp.send("HeapProfiler.collectGarbage")
    metrics = {one["name"]: one["value"] for one in cdp.send("Performance.getMetrics")["metrics"]}
    return metrics["JSHeapUsedSize"] / 2**20, metrics["Nodes"]


@pytest.mark.timeout(3 * 3600)
def test_a_page_that_stays_open(start: Callable[..., Server], endurance: Endurance) -> None:
    server = start()
    series, frames = endurance.scale((6, 60), (24, 1000))
    pixels = [mini.bright(level=level) for level in np.linspace(60, 900, 16).astype(int)]
    with chromium() as browser, FramePublisher(server.frames, "nlo-1") as publisher:
        seat = sit_down(browser.new_page(), server.url)
        cdp = seat.page.context.new_cdp_session(seat.page)
        cdp.send("Performance.enable")
        seat.page.evaluate(NOTE_PICTURES)
        assert publisher.wait_for_subscriber(60)
        states, lags = [], []
        for n in range(series):
            publisher.start_series(f"plate {n}", planned_frames=frames)
            for k in range(frames):
                row, column = divmod(k, 40)
                position = Position(x=100.0 * column, y=90.0 * row, z=0.0)
                publisher.publish(pixels[k % len(pixels)], position_um=position)
                seat.page.wait_for_timeout(1000 / RATE_HZ - 2)
            publisher.end_series()
            seat.until(lambda n=n: f"plate {n} · FOV {frames - 1} " in seat.text("#where"))
            seat.until(lambda: seat.seen() == frames)
            states.append(state(cdp))
            lags.append(seat.page.evaluate("window.lags.splice(0)"))
        assert seat.errors == []
        dropped = server.stream()["live"]["dropped"]
    steady = [memory for memory, _ in states[len(states) // 3 :]]  # the page keeps three series
    endurance.report(
        results=series * frames,
        dropped=dropped,
        heap_mib=[round(memory, 2) for memory, _ in states],
        nodes=[nodes for _, nodes in states],
        painted=sum(map(len, lags)),
        lag_ms_first=percentiles(lags[0]),
        lag_ms_last=percentiles(lags[-1]),
    )
    assert max(steady) - min(steady) < 1
    assert states[-1][1] < states[len(states) // 3][1] + 100
    assert np.median(lags[-1]) < 500 + np.median(lags[0])
