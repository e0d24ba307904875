"""The page stays open while the stream is cut and the service restarts: it recovers and misses no result."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from senoscope_client import FramePublisher
from support import miniature as mini
from support.dashboard_page import Seat
from support.microscopes import SteadyScan
from support.network_cable import Cable
from support.servers import Server, free_port, start_server, stop_server

pytestmark = pytest.mark.system("chromium")

RATE_HZ = 5.0


def in_the_history(at: Seat) -> set[str]:
    at.page.get_by_role("link", name="History").click()
    return set(at.page.locator("#rows tr").evaluate_all("rows => rows.map((row) => row.dataset.id)"))


def in_the_log(server: Server) -> set[str]:
    return {one["id"] for one in server.logged()}


@pytest.mark.parametrize("hang_up", [True, False])
def test_results_missed_while_the_page_was_disconnected_are_fetched(
    miniature: Path, tmp_path: Path, seat, hang_up: bool
) -> None:
    server = start_server(miniature, tmp_path / "log.txt")
    near = free_port()
    cable = Cable(near, int(server.url.rpartition(":")[2]))
    with FramePublisher(server.frames, "nlo-1") as publisher:
        try:
            assert publisher.wait_for_subscriber(60)
            publisher.start_series("plate 1")

            def scan(frames: int) -> None:
                for _ in range(frames):
                    publisher.publish(mini.bright())
                    time.sleep(0.05)

            at = seat(f"http://127.0.0.1:{near}")
            scan(5)
            at.until(lambda: at.seen() == 5)
            cable.cut(hang_up=hang_up)
            scan(20)
            at.until(lambda: "connection to the service is lost" in at.text("#banner"))
            assert at.seen() == 5
            cable.mend()
            at.until(lambda: at.text("#connection").endswith("Connected") and at.seen() == 25)
            scan(5)
            at.until(lambda: at.seen() == 30)
            assert in_the_history(at) == in_the_log(server)
        finally:
            cable.close()
            stop_server(server)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cut_s", [0, pytest.param(10, marks=pytest.mark.full)])
def test_the_stream_is_cut_and_the_service_restarted(
    miniature: Path, tmp_path: Path, seat, cut_s: float
) -> None:
    near, far = free_port(), free_port()
    server = start_server(miniature, tmp_path / "log.txt", "--stream", f"tcp://127.0.0.1:{near}")
    with contextlib.ExitStack() as running:
        running.callback(lambda: stop_server(server))  # the one that runs at the end
        cable = running.enter_context(contextlib.closing(Cable(near, far)))
        microscope = SteadyScan(f"tcp://127.0.0.1:{far}", RATE_HZ)
        microscope.start()
        running.callback(microscope.close)
        at = seat(server.url)
        at.until(lambda: at.seen() >= 5)

        cable.cut(hang_up=False)
        at.until(lambda: "The stream is silent" in at.text("#banner"))
        assert at.page.locator("#banner").is_visible()
        assert "Silent" in at.text("#stream")
        assert at.text("#connection").endswith("Connected"), "the service works"
        at.page.wait_for_timeout(cut_s * 1000)
        at.shoot("silent")
        before = at.seen()
        cable.mend()
        at.until(lambda: at.seen() > before and at.text("#stream").endswith("Scanning"))

        stop_server(server)
        at.until(lambda: "connection to the service is lost" in at.text("#banner"))
        at.shoot("lost")
        server = start_server(miniature, server.log, "--stream", f"tcp://127.0.0.1:{near}", like=server)
        at.until(lambda: at.text("#connection").endswith("Connected"))
        before = at.seen()
        at.until(lambda: at.seen() > before)
        at.until(at.page.locator("#banner").is_hidden)

        microscope.close()
        server.wait(lambda status: status["receiver"]["series"][0]["state"] == "ended")
        server.wait(lambda status: status["live"]["waiting"] == status["run_log"]["waiting"] == 0)
        at.until(lambda: at.seen() == len(in_the_log(server)))
        assert in_the_history(at) == in_the_log(server)
        assert len(in_the_log(server)) > 10
