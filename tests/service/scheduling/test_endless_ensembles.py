"""An ensemble whose load or computation never ends delays neither the service nor its shutdown."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import senoscope.scheduling.model_switch
from senoscope.engine import Ensemble, EnsembleError
from senoscope.engine.cancellation import Cancellation
from senoscope.engine.manifest import sha256_of, verify_file
from support import miniature as mini
from support.servers import Server, ServerThread, start_server, start_server_process
from support.slow_engine import SlowEngine


def never_end(directory: Path) -> Path:
    """Put a loop of 2**62 iterations into the graph of one network."""
    path = directory / "resnet50.onnx"
    model = onnx.load(path)
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Mul", ["x", "once"], ["x2"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("x", TensorProto.FLOAT, None),
        ],
        [value("go_on", TensorProto.BOOL, []), value("x2", TensorProto.FLOAT, None)],
    )
    constants = {"rounds": np.array(2**62, np.int64), "yes": np.array(True), "once": np.array(1, np.float32)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    for node in model.graph.node:
        node.output[:] = ["l0" if name == "logit" else name for name in node.output]
        node.input[:] = ["l0" if name == "logit" else name for name in node.input]
    model.graph.node.append(helper.make_node("Loop", ["rounds", "yes", "l0"], ["logit"], body=body))
    path.write_bytes(model.SerializeToString())
    manifest = json.loads((directory / "ensemble.json").read_text())
    for network in manifest["networks"]:
        for variant in network["variants"]:
            variant["sha256"] = sha256_of(directory / variant["file"])
    (directory / "ensemble.json").write_text(json.dumps(manifest))
    return directory


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("endless") / "models"
    mini.build(home / "good", name="good")
    mini.build(home / "other", name="other", seed=50)
    never_end(mini.build(home / "endless", name="endless"))
    return home


@pytest.fixture
def server(models_dir: Path, tmp_path: Path) -> Iterator[ServerThread]:
    running = start_server(Path("good"), tmp_path / "log.txt", "--models-dir", str(models_dir))
    yield running
    running.stop()


class Change(threading.Thread):
    """A request that changes the ensemble of a server."""

    def __init__(self, server: Server, name: str) -> None:
        super().__init__(daemon=True)
        self.answer: httpx.Response | None = None
        self._url, self._name = f"{server.url}/v1/model", name
        self.start()

    def run(self) -> None:
        try:
            self.answer = httpx.post(self._url, json={"name": self._name}, timeout=120)
        except httpx.TransportError:  # a server that stops may hang up
            self.answer = None


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def classify(server: Server) -> int:
    body = io.BytesIO()
    np.save(body, mini.bright())
    return httpx.post(f"{server.url}/v1/classify", content=body.getvalue(), timeout=60).status_code


def test_the_next_change_cancels_its_load(server: ServerThread) -> None:
    endless = Change(server, "endless")
    wait_for(lambda: server.service.changing)
    assert classify(server) == 200
    next_one = httpx.post(f"{server.url}/v1/model", json={"name": "good"}, timeout=120)
    assert next_one.status_code == 200
    endless.join(60)
    assert endless.answer is not None
    assert (endless.answer.status_code, endless.answer.json()["code"]) == (409, "conflict")
    assert "a later request for another ensemble cancelled this one" in endless.answer.json()["detail"]
    wait_for(lambda: not server.service.changing)
    assert classify(server) == 200


def test_its_load_is_cancelled_after_a_time_limit(
    models_dir: Path, start: Callable[..., ServerThread], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start("--models-dir", str(models_dir))
    with monkeypatch.context() as patch:
        patch.setitem(server.settings.__dict__, "load_timeout_s", 0.5)  # they are frozen
        answer = httpx.post(f"{server.url}/v1/model", json={"name": "endless"}, timeout=120)
    assert (answer.status_code, answer.json()["code"]) == (422, "model_rejected")
    assert "endless: was not loaded within 0.5 s" in answer.json()["detail"]
    wait_for(lambda: not server.service.changing)
    assert httpx.post(f"{server.url}/v1/model", json={"name": "good"}, timeout=120).status_code == 200
    assert classify(server) == 200


def test_a_change_that_cannot_take_over_leaves_nothing_pending(
    server: ServerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senoscope.scheduling.model_switch, "_SWAP_TIMEOUT_S", 0.3)
    with SlowEngine(server).held():
        posting = threading.Thread(target=classify, args=(server,), daemon=True)
        posting.start()
        server.wait(lambda status: status["batch"]["waiting"] == 0)
        answer = httpx.post(f"{server.url}/v1/model", json={"name": "other"}, timeout=120)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "stays in use" in answer.json()["detail"]
    posting.join(60)
    assert classify(server) == 200
    assert httpx.get(f"{server.url}/v1/model").json()["name"] == "good"
    assert httpx.post(f"{server.url}/v1/model", json={"name": "other"}, timeout=120).status_code == 200


def test_a_service_that_stops_cancels_its_load(server: ServerThread) -> None:
    endless = Change(server, "endless")
    wait_for(lambda: server.service.changing)
    assert server.stop() == 0
    endless.join(60)
    assert endless.answer is None or endless.answer.status_code == 503


def test_a_service_that_starts_with_it_ends_after_a_time_limit(models_dir: Path, tmp_path: Path) -> None:
    options = ("--models-dir", str(models_dir), "--load-timeout-s", "1")
    server = start_server_process(Path("endless"), tmp_path / "log.txt", *options, wait=False)
    assert server.process.wait(60) == 1
    assert "was not loaded within 1 s" in server.log.read_text()


def with_files_that_stall(folder: Path) -> Path:
    """A module that lets no file of an ensemble be read, as a network share does that stalls."""
    (folder / "sitecustomize.py").write_text(
        "import threading, senoscope.engine.precision_files as e, senoscope.scheduling.model_switch as m\n"
        "e.verify_file = lambda *_: threading.Event().wait()\n"
        "m._CANCEL_WAIT_S = 0.1\n"
    )
    return folder


def test_a_service_whose_files_stall_at_its_start_ends_after_a_time_limit(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(with_files_that_stall(tmp_path)), *sys.path]))
    options = ("--models-dir", str(models_dir), "--load-timeout-s", "1")
    server = start_server_process(Path("good"), tmp_path / "log.txt", *options, wait=False)
    try:
        assert server.process.wait(60) == 1
    finally:
        server.kill()
    assert "was not loaded within 1 s" in server.log.read_text()


def test_reading_a_file_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(4 * 1024 * 1024))
    cancellation = Cancellation()
    blocks = iter(range(2))

    def cancel_within() -> None:
        if next(blocks, None) is None:
            cancellation.cancel(KeyError("the reason"))
        cancellation.require()

    with pytest.raises(KeyError, match="the reason"):
        verify_file(path, sha256_of(path), cancel_within)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("name", ["ensemble.json", "xception.onnx", "test_vector.npy"])
def test_a_file_that_is_not_regular_is_refused_at_once(tmp_path: Path, name: str) -> None:
    folder = mini.build(tmp_path / "piped")
    pipe = folder / name
    pipe.unlink()
    os.mkfifo(pipe)
    # The other end of the pipe is open, so that a failing test does not wait without end.
    writing = threading.Thread(target=pipe.write_bytes, args=(b"",), daemon=True)
    writing.start()
    try:
        with pytest.raises(EnsembleError, match=f"{name}: is not a regular file"):
            Ensemble.load(folder, device="cpu")
    finally:
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # lets the writer go
        writing.join(60)
        os.close(reader)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_signal_ends_a_process_that_loads_it(models_dir: Path, tmp_path: Path) -> None:
    options = ("--models-dir", str(models_dir))
    server = start_server_process(Path("endless"), tmp_path / "log.txt", *options, wait=False)
    server.wait_for_log("loading ensemble")
    assert server.stop() == 0


def deaf_to_cancelling(folder: Path) -> Path:
    """A module that makes the process's loading of the ensemble uninterruptible, as a stuck disk is."""
    (folder / "sitecustomize.py").write_text(
        "import sys, threading, senoscope.engine.ensemble as e\n"
        "def load(*_, **__):\n"
        "    print('deaf', file=sys.stderr, flush=True)\n"
        "    threading.Event().wait()\n"
        "e_load = e.Ensemble.load.__func__\n"
        "def first(cls, *a, **k):\n"
        "    cls.load = classmethod(load)\n"
        "    return e_load(cls, *a, **k)\n"
        "e.Ensemble.load = classmethod(first)\n"
    )
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("signals", [1, pytest.param(2, marks=pytest.mark.full), 3])
def test_signals_end_a_process_whose_loading_cannot_be_interrupted(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(deaf_to_cancelling(tmp_path)))
    options = ("--models-dir", str(models_dir))
    server = start_server_process(Path("good"), tmp_path / "log.txt", *options)
    change = Change(server, "endless")
    server.wait_for_log("deaf")
    for _ in range(signals):
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
    assert server.process.wait(60) in ({0} if signals == 1 else {0, 1})
    change.join(60)


def test_cancelling_ends_a_run_and_raises_its_reason(models_dir: Path) -> None:
    cancellation = Cancellation()
    timer = threading.Timer(0.3, cancellation.cancel, [KeyError("the reason")])
    timer.start()
    with pytest.raises(KeyError, match="the reason"):
        Ensemble.load(models_dir / "endless", device="cpu", cancellation=cancellation)


def test_a_load_that_was_cancelled_before_does_not_begin(models_dir: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel(KeyError("first"))
    cancellation.cancel(KeyError("second"))
    with pytest.raises(KeyError, match="first"):
        Ensemble.load(models_dir / "good", device="cpu", cancellation=cancellation)


def test_cancelling_after_the_end_of_loading_changes_nothing(models_dir: Path) -> None:
    cancellation = Cancellation()
    with Ensemble.load(models_dir / "good", device="cpu", cancellation=cancellation) as ensemble:
        cancellation.cancel(KeyError("too late"))
        (prediction,) = ensemble.predict(mini.bright())
    assert prediction.label == "senescent"


def test_closing_ends_a_run(models_dir: Path) -> None:
    """As the service does when it stops, and its engine hangs on a field of view."""
    with Ensemble.load(models_dir / "good", device="cpu") as ensemble:
        executor = ensemble._executor
        executor._options.terminate = True  # type: ignore[attr-defined]
        with pytest.raises(Exception, match="terminate"):
            ensemble.predict(mini.bright())
