"""Log lines that any client can cause are suppressed, and counted."""

from __future__ import annotations

import pytest

from senoscope_client import rate_limiter
from senoscope_client.rate_limiter import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limiter, "time", clock)
    return clock


def lines(limiter: RateLimiter, clock: Clock, seconds: int) -> list[tuple[int, int]]:
    """When lines are written, of one attempt each second, and how many were suppressed before each."""
    written = []
    for second in range(seconds):
        suppressed = limiter.suppressed_since_last()
        if suppressed is not None:
            written.append((second, suppressed))
        clock.now_s += 1
    return written


def test_suppressed_lines_are_counted_for_each_kind(clock: Clock) -> None:
    limiter = RateLimiter(10.0)
    assert [limiter.suppressed_since_last(kind) for kind in "aaab"] == [0, None, None, 0]
    clock.now_s += 10
    assert [limiter.suppressed_since_last(kind) for kind in "ab"] == [2, 0]


def test_the_interval_is_constant_by_default(clock: Clock) -> None:
    assert lines(RateLimiter(4.0), clock, 12) == [(0, 0), (4, 3), (8, 3)]


def test_the_interval_doubles_while_lines_are_suppressed(clock: Clock) -> None:
    limiter = RateLimiter(2.0, max_interval_s=8.0)
    assert lines(limiter, clock, 24) == [(0, 0), (2, 1), (6, 3), (14, 7), (22, 7)]
    clock.now_s += 100
    assert lines(limiter, clock, 1) == [(0, 1)]
    clock.now_s += 100
    assert lines(limiter, clock, 4) == [(0, 0), (2, 1)]
