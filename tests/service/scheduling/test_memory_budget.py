"""The memory of all requests together is limited, and released."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable

import httpx
import numpy as np
import pytest

import senoscope.api.uploads
import senoscope.api.v2.routes
from senoscope.scheduling.memory_budget import MemoryBudget
from senoscope_client.errors import Busy
from support import miniature as mini
from support.image_bytes import npy
from support.run_logs import wait_for
from support.servers import ServerThread

URLS = ("/v1/classify", "/v1/normalization/calibrate", "/v2/models/miniature/infer")


def test_shares_together_keep_the_budget() -> None:
    budget = MemoryBudget(100)
    with budget.share() as one, budget.share() as other:
        one.reserve(60)
        other.reserve(40)
        for share in (one, other):
            with pytest.raises(Busy, match="try again"):
                share.reserve(1)
        one.shrink_to(10)
        other.reserve(50)
        assert budget.reserved == 100
    assert budget.reserved == 0


def test_a_share_that_is_alone_may_exceed_the_budget() -> None:
    budget = MemoryBudget(100)
    with budget.share() as one, budget.share() as other:
        one.reserve(90)
        one.reserve(90)
        with pytest.raises(Busy):
            other.reserve(1)
    assert budget.reserved == 0


def random_stack(fovs: int) -> bytes:
    return npy(np.random.default_rng(0).integers(0, 900, (fovs, 3, 250, 300)).astype(np.uint16))


def request(server: ServerThread, path: str, fovs: int, **options: object) -> httpx.Response:
    if not path.startswith("/v2"):
        return httpx.post(f"{server.url}{path}", content=random_stack(fovs), timeout=60)
    body = np.stack([mini.bright()] * fovs).astype("<f4").tobytes()
    headers = {"Inference-Header-Content-Length": "0", **options}
    if "Content-Encoding" in headers:
        body = gzip.compress(body)
    return httpx.post(f"{server.url}{path}", content=body, headers=headers, timeout=60)


@pytest.fixture
def server(start: Callable[..., ServerThread]) -> ServerThread:
    return start("--request-memory-mib", "16")


@pytest.mark.parametrize("held", URLS)
def test_a_request_beyond_the_budget_is_busy(
    server: ServerThread, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """While one request of 12 MiB is being read, others of that size are busy, small ones are served."""
    entered, may_go = threading.Event(), threading.Event()
    module = senoscope.api.v2.routes if held.startswith("/v2") else senoscope.api.uploads
    name = "decode" if held.startswith("/v2") else "read_fovs"
    read = getattr(module, name)

    def hold(*args: object, **options: object) -> object:
        answer = read(*args, **options)
        if not entered.is_set():
            entered.set()
            assert may_go.wait(60)
        return answer

    answers: list[httpx.Response] = []
    with monkeypatch.context() as patch:
        patch.setattr(module, name, hold)
        posting = threading.Thread(target=lambda: answers.append(request(server, held, 14)))
        posting.start()
        assert entered.wait(60)
        for path in URLS:
            busy = request(server, path, 14)
            assert busy.status_code == 503, (path, busy.text)
            assert int(busy.headers["retry-after"]) >= 1
            assert "--request-memory-mib" in busy.text
            if not path.startswith("/v2"):
                assert busy.json()["code"] == "busy"
        busy = request(server, URLS[2], 14, **{"Content-Encoding": "gzip"})
        assert busy.status_code == 503, "decompressed it has the same size"
        assert request(server, "/v1/classify", 1).status_code == 200
        may_go.set()
        posting.join(60)
    assert answers[0].status_code == 200
    wait_for(lambda: server.service.request_memory.reserved == 0)
    for path in URLS:
        assert request(server, path, 14).status_code == 200
    wait_for(lambda: server.service.request_memory.reserved == 0)


@pytest.mark.parametrize(
    "content", [b"no image", random_stack(1)[:-5], random_stack(1).replace(b"<u2", b"|S2")]
)
def test_a_request_that_fails_gives_its_memory_back(server: ServerThread, content: bytes) -> None:
    for path in URLS:
        assert httpx.post(f"{server.url}{path}", content=content, timeout=60).status_code >= 400
    wait_for(lambda: server.service.request_memory.reserved == 0)
