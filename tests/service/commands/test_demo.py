"""When the scan of a demo ends: after its last frame, or when it is interrupted, at any time."""

from __future__ import annotations

import io
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
from rich.console import Console

from senoscope.child_process import ChildProcess
from senoscope.commands.demo import _is_complete, _show_results
from senoscope.commands.demo_view import DemoScore
from senoscope_client.models.result import Result, Source
from senoscope_client.models.status import LiveLaneStatus, ReceiverStatus, SeriesStatus, StreamStatus


def stream(*states: str, **live: int) -> StreamStatus:
    """The status of a service that received 12 frames of each series, one series per state."""
    counts = {"waiting": 0, "classified": 12, "dropped": 0, "failed": 0} | live
    series = [SeriesStatus.model_construct(state=state, received=12) for state in states]
    return StreamStatus.model_construct(
        receiver=ReceiverStatus.model_construct(series=tuple(series)),
        live=LiveLaneStatus.model_construct(**counts),
    )


@pytest.mark.parametrize(
    ("status", "shown", "complete"),
    [
        (stream("ended"), 12, True),
        (stream("open"), 12, False),
        (stream("ended", waiting=1, classified=10), 10, False),
        (stream("ended", classified=11), 11, False),  # the last one is being computed
        (stream("ended"), 11, False),  # the last one was not received yet
        (stream("ended", classified=11, dropped=1), 11, True),
        (stream("ended", classified=11, failed=1), 11, True),
        (stream(), 12, False),
    ],
)
def test_a_scan_is_complete_when_every_frame_is_accounted_for(
    status: StreamStatus, shown: int, complete: bool
) -> None:
    score = cast(DemoScore, SimpleNamespace(classified=shown))
    assert _is_complete(status, score) is complete


@pytest.mark.parametrize(
    ("deadline_ms", "misses", "device", "row"),
    [
        (None, None, "cpu", "no deadline on a CPU"),
        (None, None, "cuda", "no deadline on this device"),
        (24.0, 3, "cpu", "deadline misses │ 3 "),
    ],
)
def test_the_summary_states_whether_there_is_a_deadline(
    deadline_ms: float | None, misses: int | None, device: str, row: str
) -> None:
    console = Console(file=io.StringIO(), width=100)
    facts = {"deadline_ms": deadline_ms, "deadline_misses": misses, "device": device}
    DemoScore(0).print_summary(console, facts)
    printed = cast(io.StringIO, console.file).getvalue()
    assert row in printed
    assert "None" not in printed


def test_stacks_that_are_posted_to_the_demo_are_not_counted_as_frames() -> None:
    table = SimpleNamespace(score=SimpleNamespace(classified=0))

    def show(result: Result) -> None:
        table.score.classified += 1
        assert result.source.kind == "stream"

    table.show = show
    results = [Result.model_construct(source=Source(kind=k, frame=0)) for k in ("upload", "file", "stream")]
    ignored = cast(Any, None)
    _show_results(ignored, cast(Any, iter(results)), ignored, ignored, cast(Any, table), 1)
    assert table.score.classified == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT of other processes")
@pytest.mark.parametrize("children", [1, 2], ids=["before the microscope starts", "as it starts"])
def test_a_demo_interrupted_before_the_first_frame_prints_its_summary(
    miniature: Path, tmp_path: Path, children: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(  # delays the first frame of the microscope
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


def test_a_process_that_failed_before_the_request_to_end_counts_as_failed() -> None:
    with ChildProcess([sys.executable, "-c", "raise SystemExit(3)"]) as child:
        child.wait(60)
        child.request_end()
        assert (child.failed, child.killed) == (True, False)
