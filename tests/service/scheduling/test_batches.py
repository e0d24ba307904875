"""The sizes of a service's batches on a CPU, which change with the stream."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import httpx
import numpy as np

from support import miniature as mini
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import Server, start_server
from support.slow_engine import SlowEngine


def batches(server: Server, fovs: int) -> list[int]:
    """Post a stack, and return the sizes of its batches: their FOVs share the time of the batch."""
    answer = httpx.post(f"{server.url}/v1/classify", content=npy(np.stack([mini.dark()] * fovs)), timeout=60)
    times = [result["timing_ms"]["compute"] for result in answer.json()["results"]]
    return [len(list(equal)) for _, equal in groupby(times)]


def test_batches_grow_while_they_save_time_and_shrink_when_a_stream_opens(
    miniature: Path, tmp_path: Path
) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--batch-size", "8")
    scope = Microscope(server.frames)
    try:
        SlowEngine(server, batch_seconds=0.4)  # much longer than a busy machine stalls
        assert batches(server, 40) == [1, 1, 1, 2, 2, 4, 4, 8, 8, 8, 1]
        assert batches(server, 9) == [8, 1]
        scope.send(scope.frame(0))
        server.wait(lambda status: status["live"]["classified"] == 1)
        assert batches(server, 5) == [1] * 5
    finally:
        scope.close()
        server.stop()


def test_batches_that_save_nothing_are_tried_once(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt")
    try:
        SlowEngine(server, seconds=0.1, batch_seconds=-0.05)  # a pair takes three times as long as one
        assert batches(server, 12) == [1, 1, 1, 2, 2, *[1] * 5]
    finally:
        server.stop()
