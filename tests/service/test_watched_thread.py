"""Threads whose failure is reported."""

from __future__ import annotations

import threading
import time

from senoscope.watched_thread import WatchedThread


def wait_until(condition, timeout_s: float = 10) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_failure_is_a_problem_with_its_reason() -> None:
    def body(stop: threading.Event) -> None:
        raise OSError("the socket broke")

    thread = WatchedThread("receiver", body)
    thread.start()
    wait_until(lambda: thread.problem)
    assert thread.problem == "the receiver thread died (OSError); see the service's log"
    assert thread.deaths == 1


def test_a_thread_with_restarts_is_started_again() -> None:
    lives = []

    def body(stop: threading.Event) -> None:
        lives.append(1)
        if len(lives) < 3:
            raise ValueError("once more")
        stop.wait(60)

    thread = WatchedThread("receiver", body, restarts=True)
    thread.start()
    wait_until(lambda: len(lives) == 3 and thread.problem is None)
    assert thread.deaths == 2
    thread.stop()
    assert thread.problem is None


def test_ending_after_a_stop_request_is_not_a_failure() -> None:
    thread = WatchedThread("receiver", lambda stop: stop.wait(60) and None, restarts=True)
    thread.start()
    thread.stop()
    assert thread.problem is None
    assert thread.deaths == 0
