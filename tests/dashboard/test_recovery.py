"""The page stays open while the stream is cut and the service restarted: it says so, and misses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from senoscope_client import FramePublisher
from support import miniature as mini
from support.dashboard_page import Seat
from support.network_cable import Cable
from support.servers import Server, free_port, start_server, stop_server

pytestmark = pytest.mark.system("chromium")

RATE_HZ, CUT_S = 5.0, 10.0


def in_the_history(at: Seat) -> set[str]:
    at.page.get_by_role("link", name="History").click()
    return set(at.page.locator("#rows tr").evaluate_all("rows => rows.map((row) => row.dataset.id)"))


def in_the_log(server: Server) -> set[str]:
    return {one["id"] for one in server.logged()}


@pytest.mark.parametrize("hang_up", [True, False])
def test_what_was_classified_while_the_page_was_cut_off_is_fetched(
    miniature: Path, tmp_path: Path, seat, hang_up: bool
) -> None:
    server = start_server(miniature, tmp_path / "log.txt")
    near = free_port()
    cable = Cable(near, int(server.url.rpartition(":")[2]))
    with FramePublisher(server.frames, "nlo-1") as publisher:
        try:
            assert publisher.wait_for_subscriber(10)
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
            at.until(lambda: at.text("#connection").endswith("Connected") and at.seen() == 25, 20)
            scan(5)
            at.until(lambda: at.seen() == 30)
            assert in_the_history(at) == in_the_log(server)
        finally:
            cable.close()
            stop_server(server)


@pytest.mark.timeout(180)
def test_cut_for_ten_seconds_then_restarted(miniature: Path, tmp_path: Path, seat) -> None:
    near, far = free_port(), free_port()
    server = start_server(miniature, tmp_path / "log.txt", "--stream", f"tcp://127.0.0.1:{near}")
    cable = Cable(near, far)
    command = [sys.executable, "-m", "senoscope_client.cli", "publish", "--synthetic", "--json"]
    command += ["--endpoint", f"tcp://127.0.0.1:{far}", "--rate", str(RATE_HZ), "--frames", "150"]
    microscope = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        at = seat(server.url)
        at.until(lambda: at.seen() >= 10, 30)

        cable.cut(hang_up=False)
        at.until(lambda: "The stream is silent" in at.text("#banner"))
        assert at.page.locator("#banner").is_visible()
        assert "Silent" in at.text("#stream")
        assert at.text("#connection").endswith("Connected"), "the service is well"
        at.page.wait_for_timeout(CUT_S * 1000)
        at.shoot("silent")
        before = at.seen()
        cable.mend()
        at.until(lambda: at.seen() > before and at.text("#stream").endswith("Scanning"), 20)

        stop_server(server)
        at.until(lambda: "connection to the service is lost" in at.text("#banner"))
        at.shoot("lost")
        server = start_server(miniature, server.log, "--stream", f"tcp://127.0.0.1:{near}", like=server)
        at.until(lambda: at.text("#connection").endswith("Connected"))
        before = at.seen()
        at.until(lambda: at.seen() > before)
        assert at.page.locator("#banner").is_hidden()

        assert json.loads(microscope.communicate(timeout=60)[0])["sent"] == 150
        server.wait(lambda told: told["receiver"]["series"][0]["state"] == "ended")
        time.sleep(0.5)  # what came last is on its way into the log
        logged = in_the_log(server)
        at.until(lambda: at.seen() == len(logged))
        assert in_the_history(at) == logged
        assert len(logged) > 40
    finally:
        microscope.kill()
        cable.close()
        stop_server(server)
