"""CURVE between a real publisher, a real service and a real subscriber."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import senoscope.stream.receiver
from senoscope_client.errors import Unauthorized
from senoscope_client.zeromq.curve_keys import create_keypair
from senoscope_client.zeromq.frame_publisher import FramePublisher
from senoscope_client.zeromq.subscribers import ResultSubscriber
from support import miniature as mini
from support.run_logs import wait_for
from support.servers import Server, start_server, stop_server


@dataclass
class Secured:
    """A service with CURVE for its stream and its results."""

    server: Server
    home: Path

    def public(self, name: str) -> str:
        return str(self.home / f"{name}.key")

    def secret(self, name: str) -> Path:
        return self.home / f"{name}.key_secret"


@pytest.fixture(scope="module")
def secured(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    home = folder / "keys"
    for name in ("acquisition", "service", "viewer", "unknown"):
        create_keypair(home, name)
    for side, name in (("may-watch", "viewer"), ("may-receive", "service")):
        (home / side).mkdir()
        shutil.copy(home / f"{name}.key", home / side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(senoscope.stream.receiver, "_LONGEST_PAUSE_S", 0.2)  # after a refusal
        server = start_server(
            miniature,
            folder / "log.txt",
            *("--curve-keypair", str(home / "service.key_secret")),
            *("--stream-server-key", str(home / "acquisition.key")),
            *("--results-allowed-keys", str(home / "may-watch")),
        )
        yield Secured(server, home)
        stop_server(server)
    secret = (home / "service.key_secret").read_text().split('"')[3]
    assert secret not in server.log.read_text()


def test_stream_and_results_are_encrypted(secured: Secured) -> None:
    with (
        FramePublisher(
            secured.server.frames,
            "nlo-1",
            curve_keypair=secured.secret("acquisition"),
            allowed_keys=secured.home / "may-receive",
        ) as publisher,
        ResultSubscriber(
            secured.server.results,
            server_key=secured.public("service"),
            curve_keypair=secured.secret("viewer"),
        ) as results,
    ):
        assert publisher.wait_for_subscriber(60)
        publisher.start_series("s")
        result = None
        for _ in range(40):  # until the subscription has reached the service
            publisher.publish(mini.bright())
            try:
                result = results.receive(0.25)
                break
            except TimeoutError:
                continue
        assert result is not None
        assert result.label == "senescent"
        assert secured.server.stream()["results_subscribers"] == 1
    secured.server.wait(lambda status: not status["receiver"]["connected"])
    secured.server.wait(lambda status: status["results_subscribers"] == 0)


@pytest.mark.parametrize(
    ("reader", "reason"),
    [("unknown", "unknown_key"), (None, "failed_handshake")],
)
def test_subscribers_without_an_allowed_key_are_refused_and_counted(
    secured: Secured, reader: str | None, reason: str
) -> None:
    before = secured.server.stream()["results_refused"].get(reason, 0)
    keys = {}
    if reader is not None:
        keys = {"server_key": secured.public("service"), "curve_keypair": secured.secret(reader)}
    with ResultSubscriber(secured.server.results, **keys) as results, pytest.raises(Unauthorized):
        results.receive(60)
    secured.server.wait(lambda status: status["results_refused"].get(reason, 0) > before)
    secured.server.wait(lambda status: status["results_subscribers"] == 0)
    refused = httpx.get(f"{secured.server.url}/metrics").text
    assert f'senoscope_subscribers_refused_total{{kind="zeromq",reason="{reason}"}}' in refused
    assert "ZeroMQ client refused" in secured.server.log.read_text()
    assert httpx.get(f"{secured.server.url}/readyz").status_code == 200


def test_frames_of_a_publisher_with_another_key_are_not_received(secured: Secured) -> None:
    server = secured.server
    with FramePublisher(server.frames, "nlo-1", curve_keypair=secured.secret("unknown")) as impostor:
        deadline = time.monotonic() + 60
        while impostor.gate.refused["failed_handshake"] < 2:  # it comes back
            assert time.monotonic() < deadline, "the service never came"
            time.sleep(0.02)
        assert not impostor.wait_for_subscriber(0.1)
    before = server.stream()["receiver"]["refused"]
    with FramePublisher(server.frames, "nlo-1") as plain:
        server.wait(lambda status: status["receiver"]["refused"] >= before + 2)
        assert not plain.wait_for_subscriber(0.1)
    assert not server.stream()["receiver"]["connected"]


def test_a_service_that_was_refused_connects_when_its_key_is_allowed(secured: Secured) -> None:
    allowed = secured.home / "allowed later"
    allowed.mkdir()
    before = secured.server.stream()["receiver"]["refused"]
    with FramePublisher(
        secured.server.frames,
        "nlo-1",
        curve_keypair=secured.secret("acquisition"),
        allowed_keys=allowed,
    ) as publisher:
        secured.server.wait(lambda status: status["receiver"]["refused"] > before, timeout_s=60)
        shutil.copy(secured.public("service"), allowed)
        assert publisher.wait_for_subscriber(60)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no such modes")
@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_a_secret_file_that_others_can_read_stops_the_service(
    start: Callable[..., Server], tmp_path: Path, mode: int
) -> None:
    _, secret = create_keypair(tmp_path / "keys", "service")
    secret.chmod(mode)
    server = start(
        *("--curve-keypair", str(secret), "--results-allowed-keys", str(tmp_path / "keys")), wait=False
    )
    wait_for(lambda: not server.running)
    assert server.stop() == 1
    assert f"chmod 600 {secret}" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()
