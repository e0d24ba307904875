"""Faults of the frame stream: the service reconnects, and counts the faults."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from senoscope_client.wire.messages import topic_of
from senoscope_client.wire.sizes import MAX_PART_BYTES, MAX_PIXEL_BYTES
from senoscope_client.zeromq import link
from support import zmtp_bytes
from support.network_cable import Cable
from support.raw_microscope import Microscope
from support.servers import ServerThread, free_port, start_server

# The first bytes of a ZMTP 3 greeting, which has 64.
HALF_GREETING = b"\xff\0\0\0\0\0\0\0\1\x7f\3"
Fault = Callable[[Microscope, Cable], None]


def oversize_part(microscope: Microscope, cable: Cable) -> None:
    """A frame that no encoder sends, of valid ZeroMQ parts."""
    header = microscope.header(0, np.zeros((3, 3400, 3400), np.uint16))
    microscope.send([topic_of(header), header.model_dump_json(exclude_none=True).encode(), bytes(66 << 20)])


def oversize_header(microscope: Microscope, cable: Cable) -> None:
    microscope.send([b"fov/nlo-1/image", bytes(MAX_PART_BYTES + 1)])


def random_bytes(microscope: Microscope, cable: Cable) -> None:
    cable.inject(os.urandom(4096))


def random_greeting(microscope: Microscope, cable: Cable) -> None:
    cable.greet_next(os.urandom(64))


def long_greeting(microscope: Microscope, cable: Cable) -> None:
    cable.greet_next(b"\xff" + os.urandom(4096))


def http_answer(microscope: Microscope, cable: Cable) -> None:
    cable.greet_next(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def half_greeting(microscope: Microscope, cable: Cable) -> None:
    cable.greet_next(HALF_GREETING)


def no_greeting(microscope: Microscope, cable: Cable) -> None:
    cable.greet_next(b"")


def many_parts(microscope: Microscope, cable: Cable) -> None:
    microscope.send([b"fov/nlo-1/image", *[b""] * 200_000])


def no_publisher(microscope: Microscope, cable: Cable) -> None:
    cable.greet_next(zmtp_bytes.greeting() + zmtp_bytes.ready(b"REQ"))


def reset(microscope: Microscope, cable: Cable) -> None:
    cable.reset()


FAULTS: dict[Fault, set[str]] = {
    oversize_part: {"protocol"},
    oversize_header: {"protocol"},
    random_bytes: {"protocol", "lost"},
    # Random bytes may be a greeting with a mechanism of its own.
    random_greeting: {"no_handshake", "protocol", "refused"},
    long_greeting: {"protocol", "no_handshake", "refused"},
    http_answer: {"no_handshake", "protocol"},
    half_greeting: {"no_handshake"},
    no_greeting: {"no_handshake"},
    many_parts: {"protocol"},
    no_publisher: {"protocol"},
    reset: {"lost"},
}


class Rig:
    """A service, a working microscope, and the cable between them."""

    def __init__(self, model: Path, log: Path) -> None:
        inner = free_port()
        self.server: ServerThread = start_server(model, log)
        self.cable = Cable(int(self.server.frames.rpartition(":")[2]), inner)
        self.microscope = Microscope(f"tcp://127.0.0.1:{inner}")
        self._frame = 0

    def send_until_classified(self) -> None:
        """Send frames until a further one is classified; those before may be lost."""
        began_s = time.monotonic()
        before = self.server.stream()["live"]["classified"]
        while self.server.stream()["live"]["classified"] == before:
            assert time.monotonic() < began_s + 60, self.server.stream()["receiver"]
            self.microscope.send(self.microscope.frame(self._frame))
            self._frame += 1
            time.sleep(0.1)

    def faults(self) -> dict[str, int]:
        receiver = self.server.stream()["receiver"]
        return {**receiver["faults"], "refused": receiver["refused"]}

    def close(self) -> None:
        self.microscope.close()
        self.cable.close()
        self.server.stop()


@pytest.fixture(scope="module")
def rig(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link, "HANDSHAKE_S", 1.0)
        made = Rig(miniature, tmp_path_factory.mktemp("faults") / "log.txt")
        yield made
        made.close()


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.full)])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_good_frames_are_classified_again(rig: Rig, fault: Fault, times: int) -> None:
    longest_s = 0.0
    for _ in range(times):
        rig.send_until_classified()
        before = rig.faults()
        began_s = time.monotonic()
        fault(rig.microscope, rig.cable)
        deadline = time.monotonic() + 60
        while sum(rig.faults()[reason] - before[reason] for reason in FAULTS[fault]) < 1:
            assert time.monotonic() < deadline, rig.server.stream()["receiver"]
            time.sleep(0.02)
        rig.send_until_classified()
        longest_s = max(longest_s, time.monotonic() - began_s)
    print(f"{fault.__name__}: a good frame is classified at most {longest_s:.1f} s later")
    status = rig.server.stream()
    assert status["receiver"]["problem"] is None
    assert httpx.get(f"{rig.server.url}/readyz").json() == {"status": "ready"}
    scraped = httpx.get(f"{rig.server.url}/metrics").text
    for reason, count in status["receiver"]["faults"].items():
        assert f'senoscope_stream_faults_total{{reason="{reason}"}} {count:.1f}' in scraped


def test_a_violation_of_the_protocol_is_reported_until_a_valid_message_arrives(rig: Rig) -> None:
    rig.send_until_classified()
    oversize_part(rig.microscope, rig.cable)
    deadline = time.monotonic() + 60
    while (ready := httpx.get(f"{rig.server.url}/readyz").json())["status"] != "degraded":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "over 64 MiB" in ready["problems"][0]
    assert rig.server.frames in ready["problems"][0]
    assert "stream interrupted" in rig.server.wait_for_log("over 64 MiB")
    rig.send_until_classified()
    assert httpx.get(f"{rig.server.url}/readyz").json() == {"status": "ready"}


def test_a_message_of_too_many_parts_is_rejected_and_ends_the_connection(rig: Rig) -> None:
    rig.send_until_classified()
    before = rig.server.stream()["receiver"]
    many_parts(rig.microscope, rig.cable)
    rig.server.wait(lambda s: s["receiver"]["faults"]["protocol"] > before["faults"]["protocol"])
    after = rig.server.stream()["receiver"]
    assert after["rejected"]["part_count"] == before["rejected"].get("part_count", 0) + 1
    rig.send_until_classified()


def test_a_message_without_an_end_ends_the_connection(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.send_until_classified()
    before = rig.faults()["protocol"]
    monkeypatch.setattr(link, "_MAX_UNFINISHED_BYTES", 16 << 20)
    endless = zmtp_bytes.endless(b"fov/nlo-1/image", 32 << 20)
    rig.cable.greet_next(zmtp_bytes.greeting() + zmtp_bytes.ready(b"PUB"), then=endless)
    rig.server.wait(lambda s: s["receiver"]["faults"]["protocol"] > before)
    rig.send_until_classified()


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (zmtp_bytes.greeting(b"PLAIN"), "another mechanism, such as PLAIN"),
        (zmtp_bytes.greeting() + zmtp_bytes.ready(b"REQ"), "is not a publisher"),
    ],
    ids=["plain", "request socket"],
)
def test_the_reported_fault_of_a_peer_is_correct(rig: Rig, bytes_: bytes, text: str) -> None:
    rig.send_until_classified()
    rig.cable.greet_next(bytes_)
    rig.server.wait(lambda s: text in (s["receiver"]["problem"] or ""))
    rig.send_until_classified()


def test_another_program_at_the_endpoint_is_reported(
    start: Callable[..., ServerThread], free_tcp_port: int
) -> None:
    server = start("--stream", f"tcp://127.0.0.1:{free_tcp_port}")
    cable = Cable(free_tcp_port, target=free_port())  # accepts, and hangs up: nothing is behind it
    try:
        deadline = time.monotonic() + 60
        while (ready := httpx.get(f"{server.url}/readyz").json())["status"] != "degraded":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert "handshake is not completed" in ready["problems"][0]
    finally:
        cable.close()


@pytest.fixture
def free_tcp_port() -> int:
    return free_port()


def test_the_largest_frame_that_can_be_encoded_is_received(
    rig: Rig,
) -> None:
    rows = MAX_PIXEL_BYTES // 8192
    rig.send_until_classified()
    before = rig.server.stream()["receiver"]["rejected"].get("wrong_frame_size", 0)
    pixels = np.zeros((1, rows, 8192), np.uint8)
    rig.microscope.send(rig.microscope.frame(10**6, pixels, channels=("SRS",)))
    rig.server.wait(lambda s: s["receiver"]["rejected"].get("wrong_frame_size", 0) == before + 1)
