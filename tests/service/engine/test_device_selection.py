"""Selection of a device, for every row of the table: chosen, missing, refusing, failing during a scan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import httpx
import onnxruntime as ort
import pytest

from senoscope.engine import DeviceError, Ensemble, openvino, tensorrt_rtx
from senoscope.engine.bound import BoundExecutor
from senoscope.engine.devices import DEVICES, Device, DeviceRow
from senoscope.engine.executor import Executor, NetworkFile, NetworkOutput, Opening
from senoscope.engine.nvidia import Gpu
from support import miniature as mini
from support import nvidia_driver
from support.image_bytes import npy
from support.raw_microscope import Microscope
from support.servers import ServerThread, start_server

RTX = Gpu("NVIDIA GeForce RTX 3090", (8, 6), "one", "580.95")


def open_bound_on_cpu(networks: Sequence[NetworkFile], how: Opening) -> Executor:
    executor = BoundExecutor(networks, device="cpu", cancellation=how.cancellation)
    executor.device = "cuda"
    return executor


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Make a device work on this machine: those for GPUs compute on the CPU."""

    def make(name: str) -> None:
        if name == "cuda":
            row = DEVICES[name]._replace(problem=lambda: None, open=open_bound_on_cpu)
            monkeypatch.setitem(DEVICES, name, row)
        if name == "tensorrt-rtx":
            monkeypatch.setitem(DEVICES, name, DEVICES[name]._replace(problem=lambda: None))
            monkeypatch.setattr(tensorrt_rtx, "find_gpu", lambda: RTX)
            monkeypatch.setattr(tensorrt_rtx, "find_devices", lambda: tuple(ort.get_ep_devices()[:1]))
            monkeypatch.setattr(
                tensorrt_rtx.platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "cache"
            )

    return make


def test_every_device_is_a_choice_and_computes_in_fp32() -> None:
    assert get_args(Device) == ("auto", *DEVICES)
    assert all("fp32" in row.precisions for row in DEVICES.values())


@pytest.mark.parametrize("name", DEVICES)
def test_chosen(miniature: Path, name: Device, works: Callable[[str], None]) -> None:
    works(name)
    with Ensemble.load(miniature, device=name) as ensemble:
        (prediction,) = ensemble.predict(mini.bright())
        assert prediction.label == "senescent"
        assert ensemble.device == ensemble.describe()["device"] == name
        assert ensemble.device_reason.startswith(DEVICES[name].title)
        assert ensemble.device_reason.endswith(", as configured")
        ensemble.keep_warm()


def test_auto_takes_only_what_was_measured(miniature: Path, works: Callable[[str], None]) -> None:
    works("tensorrt-rtx")
    assert DEVICES["openvino"].problem() is None
    with Ensemble.load(miniature) as ensemble:
        assert ensemble.device in {"cuda", "cpu"}
    works("cuda")
    with Ensemble.load(miniature) as ensemble:
        assert (ensemble.device, ensemble.device_reason) == ("cuda", "CUDA: a GPU was found")


MISSING = {
    "cuda": "no NVIDIA driver is installed",
    "tensorrt-rtx": r'.*pip install "senoscope\[tensorrt-rtx\]"',
    "openvino": r'.*pip install "senoscope\[openvino\]"',
}


@pytest.mark.parametrize("name", [name for name in DEVICES if name != "cpu"])
def test_missing(miniature: Path, name: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver(*_: object) -> None:
        raise DeviceError("no NVIDIA driver is installed")

    monkeypatch.setattr("senoscope.engine.nvidia.find_gpu", no_driver)
    monkeypatch.setattr(tensorrt_rtx, "find_gpu", lambda: RTX)
    for module in (openvino, tensorrt_rtx):
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DeviceError, match=f"--device {name}: {MISSING[name]}.*senoscope doctor"):
        Ensemble.load(miniature, device=name)


@pytest.mark.system("cc")
@pytest.mark.skipif(sys.platform != "linux", reason="the library is compiled for Linux")
def test_cuda_that_refuses_is_reported(miniature: Path, tmp_path: Path) -> None:
    """The driver finds a GPU, but ONNX Runtime selects the CPU, because CUDA's libraries do not work."""
    driver = nvidia_driver.build(tmp_path, "NVIDIA GeForce RTX 3090", (8, 6))
    program = f"""
from senoscope.engine import DeviceError, Ensemble
from senoscope.engine.devices import gpu_problem
assert gpu_problem() is None
try:
    Ensemble.load({str(miniature)!r}, device="cuda")
except DeviceError as error:
    print(error)
with Ensemble.load({str(miniature)!r}) as ensemble:
    print(ensemble.device, ensemble.device_reason)
"""
    lines = [line for line in nvidia_driver.run_with(driver, program).splitlines() if "EP Error" not in line]
    required, automatic = (line for line in lines if "Execution" in line and "ONNX Runtime selected" in line)
    assert "was to run on CUDAExecutionProvider, but ONNX Runtime selected CPUExecutionProvider" in required
    assert "senoscope[gpu]" in required
    assert automatic.startswith("cpu CPU: inception_v3.onnx was to run on CUDAExecutionProvider")


def test_tensorrt_rtx_that_refuses_is_reported(
    miniature: Path, works: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    works("tensorrt-rtx")
    monkeypatch.setattr(ort.InferenceSession, "get_providers", lambda _: ["OtherProvider"])
    with pytest.raises(
        DeviceError, match=r"was to run on CPUExecutionProvider, but .* selected OtherProvider"
    ):
        Ensemble.load(miniature, device="tensorrt-rtx")


def test_openvino_that_refuses_is_reported(miniature: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino as runtime

    get_property = runtime.CompiledModel.get_property

    def another(self: object, name: str) -> Any:
        return ["NPU"] if name == "EXECUTION_DEVICES" else get_property(self, name)

    monkeypatch.setattr(runtime.CompiledModel, "get_property", another)
    with pytest.raises(DeviceError, match=r"was to run on CPU, but OpenVINO selected \['NPU'\]"):
        Ensemble.load(miniature, device="openvino")


class LostDevice:
    """Lets the runs of an ensemble fail from some time on."""

    def __init__(self, server: ServerThread) -> None:
        self._executor = server.service.active.ensemble._executor
        self._run = self._executor.run
        self.failures = 0
        self.fail = 0
        self._executor.run = self._next  # type: ignore[method-assign]

    def _next(self, *arguments: Any) -> list[NetworkOutput]:
        if self.fail:
            self.fail -= 1
            self.failures += 1
            raise RuntimeError("the device is lost")
        return self._run(*arguments)


@pytest.fixture
def serve(miniature: Path, tmp_path: Path) -> Any:
    running = []

    def start(*options: str) -> tuple[ServerThread, Microscope]:
        server = start_server(miniature, tmp_path / "log.txt", *options)
        scope = Microscope(server.frames)
        running.append((server, scope))
        return server, scope

    yield start
    for server, scope in running:
        scope.close()
        server.stop()


@pytest.mark.parametrize("name", DEVICES)
def test_a_failure_during_a_scan_is_retried(
    name: str, works: Callable[[str], None], serve: Callable[..., tuple[ServerThread, Microscope]]
) -> None:
    works(name)
    server, scope = serve("--device", name)
    lost = LostDevice(server)
    lost.fail = 1
    scope.send(scope.frame(0, mini.bright()))
    status = server.wait(lambda now: now["live"]["classified"] == 1)
    assert (status["engine"]["retried"], status["live"]["failed"], lost.failures) == (1, 0, 1)
    assert "the device is lost" in server.wait_for_log("trying once more")
    assert server.service.active.ensemble.device == name


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_lost_during_a_scan_is_reported(
    name: str, works: Callable[[str], None], serve: Callable[..., tuple[ServerThread, Microscope]]
) -> None:
    works(name)
    server, scope = serve("--device", name)
    lost = LostDevice(server)
    lost.fail = 1000
    for frame in range(3):
        scope.send(scope.frame(frame, mini.bright()))
        server.wait(lambda now, n=frame + 1: now["live"]["failed"] == n)
    answer = httpx.get(f"{server.url}/readyz")
    assert answer.status_code == 503
    assert "the device is lost" in answer.text
    if name != "cpu":
        assert f"device={name}" in server.wait_for_log("the device failed")
    lost.fail = 0
    scope.send(scope.frame(3, mini.bright()))
    server.wait(lambda now: now["live"]["classified"] == 1)
    assert httpx.get(f"{server.url}/readyz").status_code == 200


@pytest.mark.parametrize("name", [name for name in DEVICES if name != "cpu"])
def test_fallback_continues_on_the_cpu(
    name: str, works: Callable[[str], None], serve: Callable[..., tuple[ServerThread, Microscope]]
) -> None:
    works(name)
    server, scope = serve("--device", name, "--fallback", "cpu")
    LostDevice(server).fail = 1000
    scope.send(scope.frame(0, mini.bright()))
    server.wait_for_log("ensemble changed")
    assert "the device failed, continuing on the CPU" in server.wait_for_log("continuing on the CPU")
    scope.send(scope.frame(1, mini.bright()))
    server.wait(lambda now: now["live"]["classified"] == 1)
    answer = httpx.post(f"{server.url}/v1/classify", content=npy(mini.bright()[None]), timeout=60)
    assert answer.json()["results"][0]["label"] == "senescent"
    assert httpx.get(f"{server.url}/v1/model").json()["engine"]["device"] == "cpu"


def test_auto_opens_the_first_device_that_works(miniature: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Executor:
        raise DeviceError("its memory is full")

    rows = {
        "absent": DeviceRow("Absent", "it was found", lambda: "it is not installed", fail),
        "broken": DeviceRow("Broken", "it was found", lambda: None, fail),
        "manual": DeviceRow("Manual", "it was found", lambda: None, fail, automatic=False),
        "works": DEVICES["cpu"]._replace(title="Works"),
    }
    monkeypatch.setattr("senoscope.engine.devices.DEVICES", rows)
    with Ensemble.load(miniature) as ensemble:
        assert ensemble.device_reason == "Works: it is not installed; its memory is full"
    with pytest.raises(DeviceError, match="--device absent: it is not installed"):
        Ensemble.load(miniature, device="absent")  # type: ignore[arg-type]
    monkeypatch.delitem(rows, "works")
    with pytest.raises(DeviceError, match="it is not installed; its memory is full"):
        Ensemble.load(miniature)
