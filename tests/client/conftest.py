"""Fixtures of the client's tests."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest


@pytest.fixture
def tracemalloc_peak() -> Callable:
    """A context manager whose value tells the most memory, in bytes, that was allocated within."""

    @contextmanager
    def measured() -> Iterator[Callable[[], int]]:
        tracemalloc.start()
        try:
            yield lambda: peak
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()

    return measured
