"""Fixtures of the client's tests."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import zmq

from senoscope_client.zeromq.curve_keys import create_keypair
from support.c_programs import build


@pytest.fixture
def tracemalloc_peak() -> Callable:
    """Return a context manager whose value returns the peak of allocated memory in its block, in bytes."""

    @contextmanager
    def measured() -> Iterator[Callable[[], int]]:
        tracemalloc.start()
        try:
            yield lambda: peak
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()

    return measured


@pytest.fixture(scope="session")
def c_programs(tmp_path_factory) -> Callable[[str], Path]:
    """Return the folder of the C programs and libraries built with sanitizers, each built once."""

    @cache
    def built(sanitizers: str) -> Path:
        return build(tmp_path_factory.mktemp("c"), sanitizers)

    return built


@pytest.fixture(scope="session")
def c_libraries(c_programs) -> Path:
    """Return the folder of the C libraries; a running Python cannot load the address sanitizer."""
    built = os.environ.get("SENOSCOPE_TEST_C_LIBRARIES")
    return Path(built) if built else c_programs("undefined")


@pytest.fixture
def listener():
    """Open a SUB socket with a time-out, so that a test fails instead of waiting forever."""
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.RCVTIMEO, 20_000)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.LINGER, 0)
        socket.subscribe("fov/")
        yield socket


@pytest.fixture
def keys(tmp_path):
    home = tmp_path / "keys"
    for name in ("acquisition", "service", "viewer", "unknown"):
        create_keypair(home, name)
    for side, name in (("may-watch", "viewer"), ("may-receive", "service")):
        (home / side).mkdir()
        shutil.copy(home / f"{name}.key", home / side)
    return home
