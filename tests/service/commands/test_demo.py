"""When a demo's scan is over: after its last frame, or when it was interrupted, however early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from senoscope.commands.demo import _Child, _is_complete
from senoscope.commands.demo_view import DemoScore


def stream(state: str = "ended", **live: int) -> dict[str, Any]:
    counts = {"waiting": 0, "classified": 12, "dropped": 0, "failed": 0} | live
    return {"receiver": {"series": [{"state": state, "received": 12}]}, "live": counts}


@pytest.mark.parametrize(
    ("status", "shown", "complete"),
    [
        (stream(), 12, True),
        (stream(state="open"), 12, False),
        (stream(waiting=1, classified=10), 10, False),
        (stream(classified=11), 11, False),  # the last is being computed
        (stream(), 11, False),  # the last is on its way here
        (stream(classified=11, dropped=1), 11, True),
        (stream(classified=11, failed=1), 11, True),
        ({"receiver": {"series": []}, "live": stream()["live"]}, 12, False),
    ],
)
def test_a_scan_is_over_when_every_frame_is_accounted_for(
    status: dict[str, Any], shown: int, complete: bool
) -> None:
    score = cast(DemoScore, SimpleNamespace(classified=shown))
    assert _is_complete(status, score) is complete


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT of other processes")
@pytest.mark.parametrize("children", [1, 2], ids=["before the microscope starts", "as it starts"])
def test_interrupted_before_the_first_frame_it_ends_with_its_summary(
    miniature: Path, tmp_path: Path, children: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(  # so that the test comes before the microscope's first frame
        "import sys, time\nif 'publish' in sys.orig_argv:\n    time.sleep(600)\n"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "senoscope.cli", "demo", "--model", str(miniature), "--device", "cpu"]
    command += ["--port", "0", "--no-browser", "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert process.stderr is not None
    while "The dashboard is at" not in (line := process.stderr.readline()):
        assert line
    deadline = time.monotonic() + 60
    while len(psutil.Process(process.pid).children()) < children:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    summary = json.loads(out)
    assert (summary["sent"], summary["classified"], summary["lost"]) == (0, 0, 0)
    assert "the simulated microscope ended" not in error


def test_a_microscope_that_fails_by_itself_is_no_interrupted_one() -> None:
    with _Child([sys.executable, "-c", "raise SystemExit(3)"]) as child:
        child.wait(60)
        child.ask_to_end()
        assert (child.failed, child.killed) == (True, False)
