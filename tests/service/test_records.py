"""Identifiers of results."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from senoscope.records import uuid7


def test_identifiers_sort_in_the_order_of_their_making(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [uuid7() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3_600_000_000_000)  # the clock is set back
    assert uuid7() > made[-1]


def test_identifiers_from_many_threads_differ() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: [uuid7() for _ in range(500)], range(16)))
    assert len({identifier for part in made for identifier in part}) == 8000
    assert all(part == sorted(part) for part in made)


def test_identifiers_are_of_version_7_and_tell_the_time() -> None:
    before = time.time_ns() // 1_000_000
    identifier = uuid7()
    assert (identifier.version, identifier.variant) == (7, "specified in RFC 4122")
    assert before <= identifier.int >> 80 <= before + 60_000
