"""The C programs, built with sanitizers: files, signals, wrong usage, random bytes, and a real service."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import threading
import time

import httpx
import numpy as np
import pytest
import zmq

from senoscope_client.wire.messages import EndHeader, ImageHeader, Index, decode
from senoscope_client.zeromq.curve_keys import create_keypair
from support import miniature as mini
from support.c_programs import SOURCES, publishing
from support.servers import free_port, start_server, stop_server
from support.service_double import result

DOCS = SOURCES.parents[1] / "docs" / "how-to"
pytestmark = pytest.mark.system("libzmq")
SANITIZER_REPORTS = ("Sanitizer", "runtime error")


@pytest.fixture(
    scope="module", params=["undefined", pytest.param("address,undefined", marks=pytest.mark.full)]
)
def programs(request, c_programs):
    return c_programs(request.param)


class Running:
    """A running program, which must end after SIGTERM without a report of a sanitizer."""

    def __init__(self, *command: object) -> None:
        self.lines: list[str] = []
        self.errors = ""
        self._process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        outputs = ((self._process.stdout, self.lines.append), (self._process.stderr, self._add_error))
        self._readers = [threading.Thread(target=self._read, args=pair) for pair in outputs]
        for reader in self._readers:
            reader.start()

    def _add_error(self, line: str) -> None:
        self.errors += line

    def _read(self, output, handle_line) -> None:
        for line in output:
            handle_line(line)
        output.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM if kind is None else signal.SIGKILL)
        for reader in self._readers:
            reader.join()
        if kind is not None:
            print("output of the program:", self.errors, *self.lines[-3:])  # shown by pytest
        assert self._process.wait() == 0 or kind is not None, self.errors
        assert not any(word in self.errors for word in SANITIZER_REPORTS), self.errors

    def until(self, condition, timeout_s: float = 60) -> None:
        """Wait until a condition of its output is true."""
        deadline_s = time.monotonic() + timeout_s
        while not condition(self.lines):
            assert self._process.poll() is None, self.errors
            assert time.monotonic() < deadline_s, self.lines[-3:]
            time.sleep(0.01)


def finished(*command: object) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, timeout=60
    )
    assert not any(word in done.stderr for word in SANITIZER_REPORTS), done.stderr
    return done


def mutated(data: bytes, rng: random.Random) -> bytes:
    parts = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(parts) + 1)
        parts[start : start + rng.randrange(9)] = rng.randbytes(rng.randrange(9))
    return bytes(parts)


def test_the_subscriber_handles_random_bytes(programs):
    rng = random.Random(1)
    good = result(kind="stream", series_id="\x1b[31m", frame=1).model_dump_json().encode()
    bad = [[b"result/" + rng.randbytes(8), rng.randbytes(rng.randrange(300))] for _ in range(500)]
    bad += [[b"result/", mutated(good, rng)] for _ in range(3000)]
    bad += [[b"result/", good[:cut]] for cut in range(0, len(good), 3)]
    bad += [[b"result/", *[b"x"] * rng.randrange(5)] for _ in range(100)]
    bad += [[b"result/", b"[" * 60_000], [b"result/", b'{"a":' * 60_000], [b"result/", b"9" * 60_000]]
    sentinel = [b"result/", b'{"label":"the end","probability":0.5}']
    for form in ([], ["--json"]):
        with (
            publishing(*bad, sentinel) as endpoint,
            Running(programs / "senoscope_subscribe", "--endpoint", endpoint, *form) as program,
        ):
            program.until(lambda lines: sum("the end" in line for line in lines) > 1)
            assert not any("\x1b" in line for line in program.lines)
        assert re.search(r"\d{3,} messages were not results", program.errors)


def test_the_publisher_handles_random_subscriptions(programs, listener):
    rng = random.Random(1)
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    command = [programs / "senoscope_publish", "--endpoint", endpoint, "--rate", "200", "--wait-s", "60"]
    # As many frames as it takes until the listener is connected.
    small = ("--height", "4", "--width", "5", "--frames", "1000000")
    with Running(*command, *small) as program:
        with zmq.Context() as context, context.socket(zmq.XSUB) as other:
            other.setsockopt(zmq.LINGER, 0)
            other.connect(endpoint)
            for _ in range(500):
                other.send(bytes([rng.randrange(3)]) + rng.randbytes(rng.randrange(200)))
            other.send(b"\x01" + bytes(5000))  # ends the connection
        listener.connect(endpoint)
        while not isinstance(decode(listener.recv_multipart()).header, ImageHeader):
            pass
    assert "frames sent" in program.lines[-1]


def test_the_publisher_sends_files_with_stage_positions(programs, listener, tmp_path):
    fovs = np.random.default_rng(1).random((5, 2, 6, 7)).astype(np.float32)
    (tmp_path / "a.raw").write_bytes(fovs[:3].tobytes())
    (tmp_path / "b.raw").write_bytes(fovs[3:].tobytes())
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    command = [
        *(programs / "senoscope_publish", "--endpoint", endpoint, "--rate", 500, "--json"),
        *("--instrument", "nlo-2", "--series", "plate 1", "--channels", "SRS,TPEF"),
        *("--height", 6, "--width", 7, "--dtype", "float32", tmp_path / "a.raw", tmp_path / "b.raw"),
    ]
    listener.connect(endpoint)
    done = finished(*command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sent"] == 5
    received = [decode(listener.recv_multipart()) for _ in range(7)]
    assert [message.header.type for message in received] == ["start", *["image"] * 5, "end"]
    assert (received[0].header.planned_frames, received[0].header.series_id) == (5, "plate 1")
    assert received[-1].header.frames_sent == 5
    for number, message in enumerate(received[1:-1]):
        np.testing.assert_array_equal(message.pixels, fovs[number])
        assert message.header.index == Index(p=number)
        assert message.header.position_um.x == pytest.approx(number * 7 * 0.35 * 0.9)
    looped = finished(*command, "--loop", "--frames", 12, "--wait-s", 0)
    assert json.loads(looped.stdout)["sent"] == 12


def test_the_publisher_ends_its_series_on_sigterm(programs, listener):
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    listener.connect(endpoint)
    with Running(programs / "senoscope_publish", "--endpoint", endpoint, "--rate", "0.5"):
        headers = [decode(listener.recv_multipart()).header for _ in range(3)]
    assert [header.type for header in headers] == ["start", "image", "heartbeat"]
    while not isinstance(header := decode(listener.recv_multipart()).header, EndHeader):
        pass
    assert header.reason == "stopped"


def test_the_example_of_the_manual_publishes(programs, listener, tmp_path):
    manual = (DOCS / "c-client.md").read_text("utf-8")
    code = re.search(r"^```c\n(.*?)^```", manual, re.MULTILINE | re.DOTALL)[1]
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    (tmp_path / "mine.c").write_text(code.replace("tcp://127.0.0.1:5555", endpoint))
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsanitize=address,undefined"]
    library = [f"-L{programs}", f"-Wl,-rpath,{programs}", "-lsenoscope_publish", "-lzmq"]
    command = ["cc", *flags, "-I", SOURCES, tmp_path / "mine.c", *library, "-o", tmp_path / "mine"]
    done = finished(*command)
    assert done.returncode == 0, done.stderr
    listener.connect(endpoint)
    done = finished(tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    headers = [decode(listener.recv_multipart()).header for _ in range(7)]
    assert [header.type for header in headers] == ["start", *["image"] * 5, "end"]
    assert [header.position_um.x for header in headers[1:-1]] == [94.5 * n for n in range(5)]


MISUSED = [
    ("publish", ["--fast"], "--fast: unknown option"),
    ("publish", ["--rate"], "--rate: needs a value"),
    ("publish", ["--curve-keypair", ""], "--curve-keypair: needs a value"),
    ("publish", ["--rate", "quick"], "--rate: needs a number"),
    ("publish", ["--rate", "0"], "--rate: needs a number"),
    ("publish", ["--frames", "0"], "--frames: needs a whole number"),
    ("publish", ["--frames", "1.5"], "--frames: needs a whole number"),
    ("publish", ["--wait-s", "-1"], "--wait-s: needs a number of seconds"),
    ("publish", ["--dtype", "int16"], "must be uint8, uint16 or float32"),
    ("publish", ["--dtype", "uint8"], "the test pattern is uint16"),
    ("publish", ["--loop"], "--loop: requires files"),
    ("publish", ["--height", "65536", "--width", "65536"], "at most 64 MiB"),
    ("publish", ["--endpoint", "tcp://*:5555"], "--curve-keypair, or pass --insecure"),
    ("publish", ["--endpoint", "tcp://127.evil:5555"], "--curve-keypair, or pass --insecure"),
    ("subscribe", ["--count", "many"], "--count: needs a whole number"),
    ("subscribe", ["stray"], "stray: unexpected argument"),
    ("subscribe", ["--server-key", "k"], "CURVE needs both"),
]


@pytest.mark.parametrize(("program", "arguments", "message"), MISUSED, ids=[m[2] for m in MISUSED])
def test_wrong_usage_is_reported_with_exit_status_2(programs, program, arguments, message):
    done = finished(programs / f"senoscope_{program}", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_failures_are_reported_with_exit_status_1(programs, tmp_path):
    (tmp_path / "odd.raw").write_bytes(bytes(450_001))
    keypair = str(create_keypair(tmp_path / "keys", "mine")[1])
    publish = [programs / "senoscope_publish", "--endpoint", f"tcp://127.0.0.1:{free_port()}"]
    subscribe = [programs / "senoscope_subscribe", "--endpoint", f"tcp://127.0.0.1:{free_port()}"]
    for command, message in [
        ([*publish, tmp_path / "none.raw"], "none.raw: cannot be read"),
        ([*publish, tmp_path / "odd.raw"], "not a whole number of frames"),
        ([*publish, "--wait-s", "0.1"], "no subscriber connected"),
        ([*publish, "--instrument", "a b"], "the instrument's name"),
        ([*publish, "--channels", "A,A", "--wait-s", "0"], "two channels"),
        ([*publish, "--curve-keypair", tmp_path / "none"], "neither a file"),
        ([*publish, "--curve-keypair", tmp_path / "keys" / "mine.key"], "chmod 600"),
        ([*publish, "--allowed-keys", tmp_path / "keys" / "mine.key"], "need a key pair"),
        (
            [*publish, "--curve-keypair", keypair, "--allowed-keys", tmp_path / "odd.raw"],
            "holds no CURVE key",
        ),
        ([*subscribe, "--timeout-s", "0.3"], "no result was received"),
        ([*subscribe, "--server-key", "short", "--curve-keypair", keypair], "neither a file"),
    ]:
        done = finished(*command)
        assert done.returncode == 1, (command, done)
        assert message in done.stderr
    for program in ("publish", "subscribe"):
        assert "--curve-keypair" in finished(programs / f"senoscope_{program}", "--help").stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize("frames", [100, pytest.param(1000, marks=pytest.mark.full)])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "curve"])
def test_frames_are_sent_to_a_service_and_results_are_received(
    programs, keys, miniature, tmp_path, encrypted, frames
):
    publish, watch, serve = [], [], ["--live-queue", "1000"]  # no frame is dropped, also on a slow machine
    if encrypted:
        publish += ["--curve-keypair", keys / "acquisition.key_secret"]
        publish += ["--allowed-keys", keys / "may-receive" / "service.key"]
        watch += ["--server-key", keys / "service.key", "--curve-keypair", keys / "viewer.key_secret"]
        serve += ["--curve-keypair", str(keys / "service.key_secret")]
        serve += ["--stream-server-key", str(keys / "acquisition.key")]
        serve += ["--results-allowed-keys", str(keys / "may-watch")]
    server = start_server(miniature, tmp_path / "log.txt", *serve)
    try:
        subscribe = [programs / "senoscope_subscribe", "--endpoint", server.results, "--json", *watch]
        with Running(*subscribe) as subscriber:
            until_subscribed(server, subscriber)
            scan = ["--frames", frames, "--rate", 100, "--series", "plate 1", "--json", *publish]
            done = finished(programs / "senoscope_publish", "--endpoint", server.frames, *scan)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["sent"] == frames
            subscriber.until(lambda lines: sum('"kind":"stream"' in line for line in lines) >= frames)
            status = server.wait(lambda status: status["receiver"]["series"][0]["state"] == "ended")
    finally:
        stop_server(server)
    results = [one for one in map(json.loads, subscriber.lines) if one["source"]["kind"] == "stream"]
    assert [one["source"]["frame"] for one in results] == list(range(frames))
    assert {one["label"] for one in results} == {"senescent", "control"}
    assert status["live"]["dropped"] == 0
    (series,) = status["receiver"]["series"]
    assert (series["received"], series["missing"], series["series_id"]) == (frames, 0, "plate 1")
    assert status["receiver"]["rejected"] == {}


def until_subscribed(server, subscriber: Running) -> None:
    """Post a stack repeatedly until a result is received over ZeroMQ: earlier results are lost."""
    np.save(stack := server.log.with_name("one.npy"), mini.bright())
    deadline_s = time.monotonic() + 60
    while not subscriber.lines:
        assert time.monotonic() < deadline_s
        posted = httpx.post(
            f"{server.url}/v1/classify",
            content=stack.read_bytes(),
            headers={"Content-Type": "application/x-npy"},
        )
        assert posted.status_code == 200, posted.text
        time.sleep(0.1)


def test_results_are_not_sent_to_unknown_subscribers(programs, keys, miniature, tmp_path):
    keypair, watchers = str(keys / "service.key_secret"), str(keys / "may-watch")
    server = start_server(
        miniature, tmp_path / "log.txt", "--curve-keypair", keypair, "--results-allowed-keys", watchers
    )
    try:
        watch = [programs / "senoscope_subscribe", "--endpoint", server.results, "--timeout-s", 20]
        server_key = ["--server-key", keys / "service.key", "--curve-keypair"]
        for more, message in [
            ([*server_key, keys / "unknown.key_secret"], "this public key is not allowed"),
            ([], "only one side uses CURVE"),
        ]:
            done = finished(*watch, *more)
            assert done.returncode == 1
            assert message in done.stderr
    finally:
        stop_server(server)
