"""``senoscope-client load`` on real services: what it counts, and its exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import miniature as mini
from support.commands import command_line, run_command
from support.servers import ServerThread, free_port, start_server_process
from support.slow_engine import SlowEngine


def load(*arguments: object, **environment: str) -> tuple[int, dict[str, Any], str]:
    done = run_command("senoscope-client", "load", *arguments, "--json", **environment)
    document = (
        done.stdout[done.stdout.index("{\n") :] if "{\n" in done.stdout else "{}"
    )  # log lines precede it
    return done.returncode, json.loads(document), done.stderr


def test_all_requests_of_an_open_loop_are_answered(server: ServerThread) -> None:
    code, found, error = load(server.url, "--rate", 20, "--requests", 30, "--fovs-per-request", 2)
    assert (code, found["problem"]) == (0, None), error
    assert (found["due"], found["succeeded"], found["failed"], found["fovs"]) == (30, 30, 0, 60)
    assert found["loop"] == "open"
    times = found["latency_ms"]
    assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["p99.9"] <= times["max"]
    assert found["seconds"] >= 29 / 20


def test_a_closed_loop_sends_for_some_seconds(server: ServerThread) -> None:
    code, found, error = load(server.url, "--concurrency", 3, "--seconds", 1)
    assert code == 0, error
    assert found["due"] == found["succeeded"] == found["fovs"] > 3
    assert found["seconds"] >= 1
    assert found["fovs_per_second"] == pytest.approx(found["fovs"] / found["seconds"], rel=0.01)


def test_a_file_is_sent(server: ServerThread, tmp_path: Path) -> None:
    path = tmp_path / "stack.npy"
    np.save(path, np.stack([mini.bright()] * 3))
    code, found, error = load(server.url, "--requests", 4, "--file", path)
    assert (code, found["fovs"]) == (0, 12), error


def test_the_text_names_every_figure(server: ServerThread) -> None:
    done = run_command("senoscope-client", "load", server.url, "--requests", 3, "--concurrency", 2)
    assert done.returncode == 0
    assert "3 due: 3 succeeded, 0 failed, 0 unfinished, 0 not sent" in done.stdout
    assert all(name in done.stdout for name in ("p50", "p90", "p99", "p99.9", "max", "FOVs per second"))


def stall(engine: SlowEngine, after_s: float, seconds: float) -> threading.Thread:
    def run() -> None:
        time.sleep(after_s)
        with engine.held():
            time.sleep(seconds)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_an_open_loop_counts_the_waiting_time_of_all_requests_during_a_stall(
    start: Callable[..., ServerThread],
) -> None:
    """25 requests are due during the second of the stall, and wait between 1 and 0 seconds."""
    server = start()
    engine = SlowEngine(server)
    stalling = stall(engine, 1, 1)
    code, found, error = load(server.url, "--rate", 25, "--seconds", 3)
    stalling.join()
    assert code == 0, error
    assert found["due"] == found["succeeded"] == 75
    assert found["latency_ms"]["max"] > 900
    assert found["latency_ms"]["p90"] > 500, "a tenth of the requests waited longer than half of the stall"
    stalling = stall(engine, 1, 1)
    code, found, error = load(server.url, "--concurrency", 1, "--seconds", 3)
    stalling.join()
    assert code == 0, error
    assert found["latency_ms"]["max"] > 900
    assert found["latency_ms"]["p90"] < 500, "a closed loop hides the stall"


def test_requests_without_a_response_count_with_the_time_that_they_waited(
    start: Callable[..., ServerThread],
) -> None:
    server = start()
    with SlowEngine(server).held():
        code, found, error = load(server.url, "--rate", 10, "--requests", 10, "--timeout-s", 2)
    assert code == 1
    assert found["succeeded"] == 0
    assert found["due"] == found["failed"] + found["unfinished"] + found["not_sent"] == 10
    assert {one["code"] for one in found["errors"]} <= {"timeout", "unfinished"}
    assert found["latency_ms"]["p50"] > 1500
    assert "10 of 10 requests did not succeed" in error


def test_a_bound_on_the_latency_decides_the_exit_status(start: Callable[..., ServerThread]) -> None:
    server = start()
    SlowEngine(server, 0.2)
    code, found, error = load(server.url, "--requests", 3, "--max-p99-ms", 100)
    assert code == 1
    assert "exceeds --max-p99-ms 100" in error
    assert found["problem"] in error
    code, found, error = load(server.url, "--requests", 3, "--max-p99-ms", 60_000)
    assert (code, error) == (0, "")


def test_a_full_queue_is_counted_with_its_code(start: Callable[..., ServerThread]) -> None:
    server = start("--batch-queue", "2")
    SlowEngine(server, 0.2)
    code, found, _ = load(server.url, "--rate", 20, "--requests", 20, "--timeout-s", 30)
    assert code == 1
    (busy,) = found["errors"]
    assert (busy["status"], busy["code"], busy["retry_after"]) == (503, "busy", True)
    assert busy["count"] == found["failed"] == 20 - found["succeeded"] > 0


def test_requests_after_the_end_of_the_service_are_counted(miniature: Path, tmp_path: Path) -> None:
    server = start_server_process(miniature, tmp_path / "log.txt")
    timer = threading.Timer(1.5, server.kill)
    timer.start()
    try:
        code, found, error = load(server.url, "--rate", 20, "--seconds", 4)
    finally:
        timer.join()
    assert code == 1
    assert (found["due"], found["unfinished"], found["not_sent"]) == (80, 0, 0)
    assert 0 < found["succeeded"] < 60
    assert [one["code"] for one in found["errors"]] == ["unreachable"]
    assert f"{found['failed']} of 80 requests did not succeed" in error


def test_a_wrong_address_is_reported_before_anything_is_sent(server: ServerThread) -> None:
    code, found, error = load(f"http://127.0.0.1:{free_port()}")
    assert (code, found) == (1, {})
    assert "cannot be reached" in error
    code, found, error = load("127.0.0.1:8750")
    assert (code, found) == (1, {})
    assert "is not an http:// or https:// address" in error


def test_a_key_is_sent_and_a_wrong_one_reported(start: Callable[..., ServerThread]) -> None:
    key = "k" * 40
    server = start("--api-key", key)
    code, found, error = load(server.url, "--requests", 2, "--api-key", "wrong" * 8)
    assert (code, found) == (1, {})
    assert "key" in error
    code, found, error = load(server.url, "--requests", 2, SENOSCOPE_API_KEY=key)
    assert (code, found["succeeded"]) == (0, 2), error


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT of other processes")
def test_an_interrupted_run_is_summarized(start: Callable[..., ServerThread]) -> None:
    server = start()
    with SlowEngine(server).held():
        command = command_line("senoscope-client", "load", server.url, "--rate", 10, "--json")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server.wait(lambda status: status["batch"]["waiting"] >= 3)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    found = json.loads(out)
    assert process.returncode == 130, error
    assert (found["interrupted"], found["succeeded"]) == (True, 0)
    assert found["due"] == found["unfinished"] + found["not_sent"] >= 3
    assert "interrupted" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ("--rate", "0"),
        ("--rate", "5", "--concurrency", "2"),
        ("--seconds", "1", "--requests", "2"),
        ("--file", "a.npy", "--fovs-per-request", "2"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = run_command("senoscope-client", "load", *arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr
