"""One complete session with the dashboard, with the real service and the seven networks."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import tifffile

from senoscope_client.simulation.synthetic import synthesize
from support.dashboard_page import Seat
from support.servers import Server, start_server, stop_server

pytestmark = [
    pytest.mark.full,
    pytest.mark.system("chromium"),
    pytest.mark.networks,
    pytest.mark.timeout(900),
]


def brightest(at: Seat) -> tuple[float, float]:
    """Return the brightest point of the stage map, in coordinates of the page."""
    box = at.page.locator("#map").bounding_box()
    assert box is not None
    picture = cv2.imdecode(
        np.frombuffer(at.page.locator("#map").screenshot(), np.uint8), cv2.IMREAD_GRAYSCALE
    )
    # The frame around the selected tile is white, but thin.
    smooth = cv2.erode(picture, np.ones((9, 9), np.uint8))
    y, x = np.unravel_index(int(smooth.argmax()), smooth.shape)
    return box["x"] + float(x), box["y"] + float(y)


def scan(server: Server, series: str) -> subprocess.Popen[bytes]:
    """Start a simulated microscope with a rate that this machine can compute."""
    compute_ms = httpx.get(f"{server.url}/v1/model").json()["engine"]["compute_ms"]
    rate_hz = min(max(0.5, 600 / compute_ms), 2.0)
    command = [sys.executable, "-m", "senoscope_client.cli", "publish", "--synthetic", "--json"]
    command += ["--endpoint", server.frames, "--rate", f"{rate_hz:.3f}", "--seed", "2023", "--series", series]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def end(microscope: subprocess.Popen[bytes]) -> None:
    microscope.terminate()
    microscope.communicate(timeout=60)


def test_watch_pause_pick_export_drop_calibrate(starter_ensemble: Path, tmp_path: Path, seat) -> None:
    server = start_server(starter_ensemble, tmp_path / "log.txt", "--live-queue", "64")
    microscope = scan(server, "plate 3")
    try:
        # Open, and watch 20 fields of view.
        at = seat(server.url)
        at.until(lambda: at.seen() >= 20, 300)
        assert "The ensemble starter is in use" in at.text("#starter")
        assert re.match(r"FOV|plate 3 · FOV \d+", at.text("#where"))
        at.until(lambda: at.text("#label") == "senescent", 120)
        at.page.wait_for_timeout(400)
        at.shoot("dashboard")  # the README's, with --pictures

        # Pause, and click the brightest on the stage map.
        at.page.get_by_role("button", name="Pause").click()
        at.page.wait_for_timeout(300)
        at.page.mouse.click(*brightest(at))
        page = server.logged()
        most = max(result["probability"] for result in page)
        at.until(lambda: at.text("#label") == "senescent")
        shown = next(r for r in page if f"FOV {r['source']['frame']} ·" in at.text("#where"))
        assert shown["probability"] >= most - 0.02, "viridis has no finer steps"
        where = at.text("#where")

        # Switch channel and network.
        main = at.page.locator("#main")
        at.until(lambda: "SRS, Grad-CAM of the ensemble" in (main.get_attribute("aria-label") or ""))
        pictures = [main.screenshot()]
        at.page.get_by_label("TPEF", exact=True).check(force=True)
        at.until(lambda: "TPEF" in (main.get_attribute("aria-label") or ""))
        pictures.append(main.screenshot())
        at.page.get_by_label("Network of the Grad-CAM").select_option("resnet50")
        at.until(lambda: "Grad-CAM of resnet50" in (main.get_attribute("aria-label") or ""))
        pictures.append(main.screenshot())
        assert len(set(pictures)) == 3
        assert at.text("#where") == where, "the scan continues, and the selection stays"

        # Export CSV.
        with at.page.expect_download() as download:
            at.page.locator("#live").get_by_role("button", name="Export CSV").click()
        rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
        assert len(rows) >= 20
        by_id = {result["id"]: result["probability"] for result in page}
        exported = {row["id"]: float(row["probability"]) for row in rows if row["id"] in by_id}
        assert exported == pytest.approx(by_id, abs=1e-6)

        # The scan is over. Drop a stack: the same view.
        end(microscope)
        stack = np.stack([synthesize(77, n).pixels for n in range(3)])
        path = tmp_path / "yesterday.tif"
        tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "TCYX"})
        at.page.locator("#file").set_input_files(path)
        # At once on the live view, else with the button of the message.
        at.until(
            lambda: "yesterday.tif · FOV 0" in at.text("#where") or "3 fields of view." in at.text("#toasts"),
            250,
        )
        if "yesterday.tif" not in at.text("#where"):
            at.page.get_by_role("button", name="Show", exact=True).click()
        at.until(lambda: "yesterday.tif · FOV 0" in at.text("#where"), 90)
        assert at.seen() == 3
        truth = ["senescent" if synthesize(77, n).senescent else "control" for n in range(3)]
        labels = []
        for n in range(3):
            at.until(lambda n=n: f"FOV {n}" in at.text("#where"))
            labels.append(at.text("#label"))
            at.page.keyboard.press("ArrowRight")
        assert labels == truth

        # The next plate: calibrate on what is scanned now.
        microscope = scan(server, "plate 4")
        at.page.get_by_role("link", name="Model and range").click()
        at.page.get_by_role("spinbutton", name="Fields of view").fill("5")
        at.page.get_by_role("button", name="Calibrate from the stream").click()
        at.until(lambda: "Calibrated on 5 fields of view" in at.text("#calibration"), 120)
        assert httpx.get(f"{server.url}/v1/normalization").json()["source"] == "session"
        at.page.get_by_role("link", name="Live").click()
        at.page.get_by_role("button", name="Follow").click()
        at.until(lambda: "plate 4" in at.text("#where"), 20)
        at.until(lambda: server.logged(kind="stream", limit=1)[0]["normalization"]["source"] == "session", 60)
    finally:
        end(microscope)
        stop_server(server)
