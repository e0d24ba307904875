"""Many changes of the ensemble: memory, file descriptors and threads stay constant."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from support import miniature as mini
from support.load import Endurance
from support.servers import Server

pytestmark = pytest.mark.full


def test_changes_release_the_previous_ensembles(
    start: Callable[..., Server], endurance: Endurance, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    for seed, name in enumerate(("one", "other")):
        mini.build(models / name, name=name, seed=50 * seed)
    changes = endurance.scale(100, 1000)
    server = start("--model", "one", "--models-dir", str(models), "--remember-mib", "8", "--threads", "1")
    process = psutil.Process(server.process.pid)
    stack = io.BytesIO()
    np.save(stack, np.stack([mini.bright()] * 2))
    memory_mib, descriptors, threads = [], [], []
    with httpx.Client(timeout=60) as client:
        for n in range(changes):
            name = ("other", "one")[n % 2]
            assert client.post(f"{server.url}/v1/model", json={"name": name}).status_code == 200
            answer = client.post(f"{server.url}/v1/classify", content=stack.getvalue()).json()
            assert {result["model"]["name"] for result in answer["results"]} == {name}
            memory_mib.append(process.memory_info().rss / 2**20)
            descriptors.append(process.num_fds())
            threads.append(process.num_threads())
    warm = 10
    endurance.report(
        changes=changes,
        memory_mib={"after_first": memory_mib[0], "after_warm_up": memory_mib[warm], "last": memory_mib[-1]},
        descriptors=[descriptors[warm], descriptors[-1]],
        threads=[threads[warm], threads[-1]],
    )
    # An ensemble that is not released takes some 40 MiB, allocated by ONNX Runtime for seven sessions.
    assert memory_mib[-1] - memory_mib[warm] < 60
    assert descriptors[-1] <= descriptors[warm] + 2
    assert threads[-1] <= threads[warm] + 2
