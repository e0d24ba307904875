"""CURVE keys, and access control of the frame stream and the results, over real sockets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zmq

from senoscope_client.cli import main
from senoscope_client.errors import Unauthorized
from senoscope_client.security.loopback import is_local_endpoint, is_loopback
from senoscope_client.zeromq.curve_keys import CurveClient, create_keypair, load_keypair, load_public_key
from senoscope_client.zeromq.curve_server import CurveAccess
from senoscope_client.zeromq.frame_publisher import FramePublisher
from senoscope_client.zeromq.subscribers import ResultSubscriber
from support.service_double import result

PIXELS = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
ANYWHERE = "tcp://127.0.0.1:*"


@dataclass
class Keys:
    """Three key pairs, and a folder of allowed keys with one of them."""

    home: Path

    def public(self, name: str) -> str:
        return str(self.home / f"{name}.key")

    def secret(self, name: str) -> Path:
        return self.home / f"{name}.key_secret"

    @property
    def allowed(self) -> Path:
        return self.home / "allowed"

    def allow(self, name: str) -> None:
        shutil.copy(self.public(name), self.allowed)


@pytest.fixture
def keys(tmp_path):
    created = Keys(tmp_path / "keys")
    for name in ("server", "allowed", "unknown"):
        create_keypair(created.home, name)
    created.allowed.mkdir()
    created.allow("allowed")
    return created


def subscriber(endpoint: str, curve: CurveClient | None) -> zmq.Socket:
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.subscribe("fov/")
    if curve is not None:
        curve.secure(socket)
    socket.connect(endpoint)
    return socket


def wait_until(condition, timeout_s: float = 10) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file modes")
def test_only_the_owner_can_read_a_secret_file(tmp_path):
    before = os.umask(0)
    try:
        public, secret = create_keypair(tmp_path, "pc")
    finally:
        os.umask(before)
    assert secret.stat().st_mode & 0o777 == 0o600
    pair = load_keypair(secret)
    assert pair.public == load_public_key(str(public))
    assert pair.secret.decode() not in repr(pair)
    assert pair.secret.decode() not in public.read_text()
    secret.chmod(0o640)
    with pytest.raises(PermissionError, match=f"chmod 600 {secret}"):
        load_keypair(secret)


def test_keys_are_never_overwritten(tmp_path):
    _, secret = create_keypair(tmp_path, "pc")
    before = secret.read_text()
    with pytest.raises(FileExistsError, match="another name"):
        create_keypair(tmp_path, "pc")
    (tmp_path / "pc.key").unlink()
    with pytest.raises(FileExistsError, match="another name"):
        create_keypair(tmp_path, "pc")
    assert secret.read_text() == before
    for name in ("../pc", "", "a/b", ".hidden"):
        with pytest.raises(ValueError, match="cannot name a key"):
            create_keypair(tmp_path, name)


def test_a_file_or_text_without_a_key_is_rejected(tmp_path, keys):
    assert load_public_key(Path(keys.public("allowed")).read_text().split('"')[1]) == load_public_key(
        keys.public("allowed")
    )
    (tmp_path / "x").touch(0o600)
    (tmp_path / "x").write_text(Path(keys.public("allowed")).read_text())
    with pytest.raises(ValueError, match="no secret key"):
        load_keypair(tmp_path / "x")
    for bad in ("~" * 40, "nowhere.key"):
        with pytest.raises((OSError, ValueError)):
            load_public_key(bad)


def test_only_allowed_subscribers_receive_frames(keys):
    subscribers = {
        "allowed": (CurveClient.load(keys.public("server"), keys.secret("allowed")), None),
        "unknown key": (CurveClient.load(keys.public("server"), keys.secret("unknown")), "unknown_key"),
        "new key": (CurveClient.load(keys.public("server")), "unknown_key"),
        "wrong server key": (
            CurveClient.load(keys.public("unknown"), keys.secret("allowed")),
            "failed_handshake",
        ),
        "plain": (None, "failed_handshake"),
    }
    with FramePublisher(
        ANYWHERE, "nlo-1", curve_keypair=keys.secret("server"), allowed_keys=keys.allowed
    ) as publisher:
        publisher.start_series("s")
        refused = {}
        for name, (curve, reason) in subscribers.items():
            before = publisher.gate.refused[reason]
            with subscriber(publisher.endpoint, curve) as socket:
                if reason is None:
                    assert publisher.wait_for_subscriber(60)
                    publisher.publish(PIXELS)
                    assert socket.poll(10_000)
                    continue
                wait_until(lambda before=before, reason=reason: publisher.gate.refused[reason] > before)
                refused[name] = publisher.gate.refused[reason] - before
                for _ in range(5):
                    publisher.publish(PIXELS)
                assert not socket.poll(200), f"{name} received a message"
        assert set(refused) == {"unknown key", "new key", "wrong server key", "plain"}
        assert publisher.gate.problem is None


def test_without_allowed_keys_the_servers_public_key_suffices(keys):
    with FramePublisher(ANYWHERE, "nlo-1", curve_keypair=keys.secret("server")) as publisher:
        publisher.start_series("s")
        with subscriber(publisher.endpoint, CurveClient.load(keys.public("server"))) as socket:
            assert publisher.wait_for_subscriber(60)
            publisher.publish(PIXELS)
            assert socket.poll(10_000)


def test_a_key_that_is_added_to_the_folder_is_allowed_at_once(keys):
    with FramePublisher(
        ANYWHERE, "nlo-1", curve_keypair=keys.secret("server"), allowed_keys=keys.allowed
    ) as publisher:
        curve = CurveClient.load(keys.public("server"), keys.secret("unknown"))
        with subscriber(publisher.endpoint, curve):
            wait_until(lambda: publisher.gate.refused["unknown_key"])
        keys.allow("unknown")
        with subscriber(publisher.endpoint, curve):
            assert publisher.wait_for_subscriber(60)


def test_allowed_keys_require_a_key_pair(keys):
    with pytest.raises(ValueError, match="curve_keypair"):
        FramePublisher(ANYWHERE, "nlo-1", allowed_keys=keys.allowed)
    with pytest.raises(ValueError, match="server_key"):
        ResultSubscriber("tcp://127.0.0.1:1", curve_keypair=keys.secret("allowed"))
    with pytest.raises(OSError, match="not a folder"):
        FramePublisher(ANYWHERE, "n", curve_keypair=keys.secret("server"), allowed_keys=keys.home / "none")
    curve = {"curve_keypair": keys.secret("server"), "allowed_keys": keys.allowed}
    with (
        FramePublisher(ANYWHERE, "n", **curve) as one,
        pytest.raises(OSError, match="cannot be bound"),
    ):
        FramePublisher(one.endpoint, "m", **curve)


@pytest.fixture
def results(keys):
    """Publish one result repeatedly over a socket with access control, as the service does."""
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    access = CurveAccess(socket, keys.secret("server"), keys.allowed)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    stop = threading.Event()
    message = result(file="a.tif").model_dump_json().encode()

    def publish() -> None:
        while not stop.wait(0.02):
            socket.send_multipart([b"result/upload", message])

    thread = threading.Thread(target=publish)
    thread.start()
    yield f"tcp://127.0.0.1:{port}"
    stop.set()
    thread.join()
    access.close()
    socket.close(0)
    context.term()


def test_allowed_subscribers_receive_results_and_others_raise_unauthorized(keys, results):
    server = keys.public("server")
    with ResultSubscriber(results, server_key=server, curve_keypair=keys.secret("allowed")) as allowed:
        assert allowed.receive(60).source.file == "a.tif"
    with (
        ResultSubscriber(results, server_key=server, curve_keypair=keys.secret("unknown")) as unknown,
        pytest.raises(Unauthorized, match="this public key is not allowed"),
    ):
        unknown.receive(10)
    with ResultSubscriber(results) as plain, pytest.raises(Unauthorized, match="CURVE"):
        plain.receive(10)


def test_watch_uses_keys(keys, results, capsys):
    watch = ["watch", "--zmq", results, "--count", "1", "--json", "--timeout-s", "10"]
    allowed = ["--server-key", keys.public("server"), "--curve-keypair", str(keys.secret("allowed"))]
    assert main([*watch, *allowed]) == 0
    assert json.loads(capsys.readouterr().out)["source"]["file"] == "a.tif"
    assert main([*watch, *allowed[:2], "--curve-keypair", str(keys.secret("unknown"))]) == 1
    assert "this public key is not allowed" in capsys.readouterr().err
    assert main(["watch", *allowed]) == 2
    assert "--zmq" in capsys.readouterr().err


def test_publish_uses_keys_and_requires_them_beyond_this_machine(keys, capsys):
    assert main(["publish", "--synthetic", "--endpoint", "tcp://*:0"]) == 2
    error = capsys.readouterr().err
    assert "--curve-keypair" in error
    assert "--insecure" in error
    some = ["publish", "--synthetic", "--frames", "1", "--wait-s", "0", "--endpoint", "tcp://0.0.0.0:*"]
    assert main([*some, "--insecure"]) == 0
    secured = ["--curve-keypair", str(keys.secret("server")), "--allowed-keys", str(keys.allowed)]
    assert main([*some, *secured]) == 0


def test_the_keys_command_creates_a_key_pair(tmp_path, capsys):
    assert main(["keys", str(tmp_path / "new"), "--name", "pc"]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["pc.key", "pc.key_secret"]
    assert main(["keys", str(tmp_path / "new"), "--name", "pc"]) == 1
    assert "another name" in capsys.readouterr().err


def test_without_the_authentication_thread_no_client_is_accepted(keys):
    """Without replies to ZeroMQ's authentication requests the socket must refuse all clients."""
    code = f"""
import zmq
from senoscope_client.zeromq.curve_keys import CurveClient
from senoscope_client.zeromq.curve_server import CurveAccess
context = zmq.Context()
pub = context.socket(zmq.XPUB)
access = CurveAccess(pub, {str(keys.secret("server"))!r}, {str(keys.allowed)!r})
port = pub.bind_to_random_port("tcp://127.0.0.1")
access.close()
sub = zmq.Context.instance().socket(zmq.SUB)
CurveClient.load({keys.public("server")!r}, {str(keys.secret("allowed"))!r}).secure(sub)
sub.subscribe("")
sub.connect(f"tcp://127.0.0.1:{{port}}")
print(pub.poll(1000))
sub.close(0); pub.close(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "0"


def test_a_subscriber_with_a_too_long_subscription_is_disconnected():
    with FramePublisher(ANYWHERE, "nlo-1") as publisher, subscriber(publisher.endpoint, None) as socket:
        assert publisher.wait_for_subscriber(60)
        monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        socket.subscribe("x" * 5000)
        assert monitor.poll(10_000)
        socket.disable_monitor()
        monitor.close(0)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("*", False),
        ("192.168.0.4", False),
        ("no-such-name.invalid", False),
    ],
)
def test_is_loopback(host, local):
    assert is_loopback(host) == local


@pytest.mark.parametrize(
    ("endpoint", "local"),
    [
        ("tcp://127.0.0.1:5556", True),
        ("tcp://[::1]:5556", True),
        ("tcp://localhost:*", True),
        ("ipc:///run/x", True),
        ("tcp://*:5556", False),
        ("tcp://[::]:5556", False),
        ("tcp://eth0:5556", False),
        ("tcp://10.0.0.1:*", False),
    ],
)
def test_is_local_endpoint(endpoint, local):
    assert is_local_endpoint(endpoint) == local
