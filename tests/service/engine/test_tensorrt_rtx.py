"""The plug-in provider TensorRT RTX, without its GPU: which cards, which library, whose cache."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from senoscope.engine import DeviceError, nvidia, tensorrt_rtx
from senoscope.engine.cpu import CpuExecutor
from senoscope.engine.executor import NetworkFile
from senoscope.engine.nvidia import Gpu
from senoscope.engine.sessions import Provider, create_session
from senoscope.engine.tensorrt_rtx import TensorRtRtxExecutor, find_devices, open_cache, unsupported
from support import miniature as mini
from support import nvidia_driver

LOW, HIGH = np.full(3, mini.LOW, np.float32), np.full(3, mini.HIGH, np.float32)
MADE_FOR = {
    "digest": "ab" * 32,
    "precision": "fp16",
    "GPU": "NVIDIA GeForce RTX 3090",
    "card": "one",
    "driver": "580.95",
    "TensorRT RTX": "0.5.0",
    "ONNX Runtime": "1.31.1",
}


@pytest.mark.parametrize(
    ("name", "capability", "supported"),
    [
        ("NVIDIA GeForce RTX 2080", (7, 5), False),
        ("NVIDIA A100-SXM4-80GB", (8, 0), False),
        ("NVIDIA GeForce RTX 3090", (8, 6), True),
        ("Orin", (8, 7), False),
        ("NVIDIA GeForce RTX 4090", (8, 9), True),
        ("NVIDIA H200", (9, 0), False),
        ("NVIDIA GeForce RTX 5090", (12, 0), True),
    ],
)
@pytest.mark.system("cc")
@pytest.mark.skipif(sys.platform != "linux", reason="the library is compiled for Linux")
def test_the_driver_tells_which_cards_it_supports(
    tmp_path: Path, name: str, capability: tuple[int, int], supported: bool
) -> None:
    driver = nvidia_driver.build(tmp_path, name, capability)
    program = "from senoscope.engine.nvidia import find_gpu; from senoscope.engine import tensorrt_rtx; "
    program += "print(find_gpu()); print(tensorrt_rtx.problem())"
    gpu, problem = nvidia_driver.run_with(driver, program).splitlines()
    identifier = "07070707-0707-0707-0707-070707070707"
    assert gpu.startswith(f"Gpu(name={name!r}, capability={capability}, identifier={identifier!r}")
    assert "for CUDA 13.2" in gpu or "driver=" in gpu
    reason = f"does not support the {name} (compute capability {capability[0]}.{capability[1]})"
    assert (reason in problem) is not supported
    assert (unsupported(Gpu(name, capability, "", "")) is None) is supported


@pytest.mark.system("cc")
@pytest.mark.skipif(sys.platform != "linux", reason="the library is compiled for Linux")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "the NVIDIA driver finds no GPU"),
        ({"uuid_error": 801}, "the NVIDIA driver does not describe the GPU: CUDA error 801"),
    ],
)
def test_a_driver_without_a_gpu_that_works(tmp_path: Path, options: dict[str, int], message: str) -> None:
    driver = nvidia_driver.build(tmp_path, "Any", (8, 6), **options)
    program = "from senoscope.engine.devices import DEVICES; print(*(DEVICES[name].problem() for name in "
    program += "('cuda', 'tensorrt-rtx')), sep='\\n')"
    assert nvidia_driver.run_with(driver, program).splitlines() == [message] * 2


@pytest.mark.parametrize(("platform", "library"), [("linux", "libcuda.so.1"), ("win32", "nvcuda.dll")])
def test_the_driver_is_looked_up_under_the_name_of_the_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, library: str
) -> None:
    asked = []

    def load(name: str) -> None:
        asked.append(name)
        raise OSError

    monkeypatch.setattr(nvidia.sys, "platform", platform)
    monkeypatch.setattr(nvidia.ctypes, "CDLL", load)
    with pytest.raises(DeviceError, match="no NVIDIA driver is installed"):
        nvidia.find_gpu()
    assert asked == [library]


def install(monkeypatch: pytest.MonkeyPatch, library: str, name: str = "FakeExecutionProvider") -> None:
    """Put a package with a provider's library in the place of the real one."""
    package = ModuleType("onnxruntime_ep_nv_tensorrt_rtx")
    package.get_ep_name = lambda: name  # type: ignore[attr-defined]
    package.get_library_path = lambda: library  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)


@pytest.mark.parametrize(
    "library",
    [
        r"C:\Program Files\Python 3.13\Ünïcode\onnxruntime_providers_nv_tensorrt_rtx.dll",
        "/no/such/folder/x.so",
    ],
)
def test_a_library_that_cannot_be_loaded_is_an_error(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    install(monkeypatch, library)
    with pytest.raises(DeviceError, match="TensorRT RTX cannot be loaded: ") as raised:
        find_devices()
    assert library in str(raised.value)


@pytest.mark.system("cc")
@pytest.mark.skipif(sys.platform != "linux", reason="the library is compiled for Linux")
def test_a_library_that_is_no_provider_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = nvidia_driver.build(tmp_path, "Any", (8, 6))
    install(monkeypatch, str(folder / "libcuda.so.1"))
    with pytest.raises(DeviceError, match=r"TensorRT RTX cannot be loaded: .*CreateEpFactories"):
        find_devices()


def test_a_library_without_devices_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "registered before")
    monkeypatch.setattr(ort, "register_execution_provider_library", lambda name, path: None)
    with pytest.raises(DeviceError, match="finds no GPU that it supports"):
        find_devices()


def test_a_second_registration_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "registered before", name="CPUExecutionProvider")

    def register(name: str, path: str) -> None:
        raise RuntimeError(f"EP library is already registered under {name}")

    monkeypatch.setattr(ort, "register_execution_provider_library", register)
    assert [device.ep_name for device in find_devices()] == ["CPUExecutionProvider"]


def files(miniature: Path) -> list[NetworkFile]:
    return [
        NetworkFile(name, miniature / f"{name}.onnx", grid, mini.FEATURES, (3, 250, 300))
        for name, grid in zip(mini.NAMES, mini.GRIDS, strict=True)
    ]


def in_thread(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function in another thread: opening a network makes its thread take denormals as zero."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments, **options).result()


def cpu_devices() -> tuple[object, ...]:
    return tuple(device for device in ort.get_ep_devices() if device.ep_name == "CPUExecutionProvider")


def test_networks_run_on_a_device_of_the_list(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ONNX Runtime's CPU device instead of a GPU's."""
    monkeypatch.setattr(tensorrt_rtx, "find_gpu", lambda: Gpu("RTX 3090", (8, 6), "one", "580.95"))
    monkeypatch.setattr(tensorrt_rtx, "find_devices", cpu_devices)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "unchanged")
    fovs = np.random.default_rng(1).integers(0, 1100, (3, 3, 250, 300)).astype(np.uint16)
    plain = CpuExecutor(files(miniature), threads=1)
    executor = TensorRtRtxExecutor(files(miniature), digest="ab" * 32, caches=tmp_path)
    try:
        executor.warm_up(fovs[:1].astype(np.float32), LOW, HIGH)
        executor.keep_warm()
        for a, b in zip(plain.run(fovs, LOW, HIGH), executor.run(fovs, LOW, HIGH), strict=True):
            np.testing.assert_allclose(a.probability, b.probability, atol=1e-6)
        assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"  # without it, fp32 would be rounded
        assert executor.describe() == {"provider": "CPUExecutionProvider", "workers": 1}
    finally:
        plain.close()
        executor.close()
    (cache,) = tmp_path.iterdir()
    assert cache.name == "abababababababab-fp32-RTX-3090"
    assert {path.name for path in cache.iterdir()} == {"made-for.json", *mini.NAMES}
    in_tf32 = [replace(file, precision="tf32") for file in files(miniature)]
    TensorRtRtxExecutor(in_tf32, digest="ab" * 32, precision="tf32", caches=tmp_path).close()
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    # The variable is read for the whole process: one network that failed the gate excludes TF32 for all.
    mixed = [*in_tf32[1:], *files(miniature)[:1]]
    with pytest.raises(DeviceError, match="either all networks in TF32 or none"):
        TensorRtRtxExecutor(mixed, digest="ab" * 32, precision="tf32", caches=tmp_path)


def test_a_session_of_another_provider_is_an_error(miniature: Path) -> None:
    (network, *_) = files(miniature)
    refused = Provider("NvTensorRTRTXExecutionProvider", {}, cpu_devices(), remedy="see its documentation")
    with pytest.raises(DeviceError, match="but ONNX Runtime selected CPUExecutionProvider: see its doc"):
        in_thread(create_session, network, refused, threads=1)


def test_a_provider_that_leaves_convolutions_to_another_is_an_error(
    miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (network, *_) = files(miniature)
    monkeypatch.setattr(
        ort.InferenceSession, "get_providers", lambda self: ["NvTensorRTRTXExecutionProvider"]
    )
    provider = Provider("NvTensorRTRTXExecutionProvider", {}, cpu_devices())
    with pytest.raises(DeviceError, match=r"leaves 1 of the 1 convolutions of .* to CPUExecutionProvider"):
        in_thread(create_session, network, provider, threads=1)


def test_a_cache_is_used_again(tmp_path: Path) -> None:
    folder = open_cache(tmp_path, MADE_FOR)
    (folder / "engine").write_bytes(b"x")
    assert open_cache(tmp_path, MADE_FOR) == folder
    assert (folder / "engine").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("changed", "same_folder"),
    [
        ({"card": "another"}, True),
        ({"driver": "590.10"}, True),
        ({"TensorRT RTX": "0.6.0"}, True),
        ({"digest": "cd" * 32}, False),
        ({"precision": "fp32"}, False),
        ({"GPU": "NVIDIA GeForce RTX 5090"}, False),
    ],
)
def test_a_cache_made_for_another_machine_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, str], same_folder: bool
) -> None:
    first = open_cache(tmp_path, MADE_FOR)
    (first / "engine").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        second = open_cache(tmp_path, MADE_FOR | changed)
    assert not (second / "engine").exists()
    assert (second == first) is same_folder
    assert (first / "engine").exists() is not same_folder
    assert json.loads((second / "made-for.json").read_text()) == MADE_FOR | changed


@pytest.mark.parametrize("record", [None, b"", b"[1]", b'{"card": "another"}', b"\xff"])
def test_the_differences_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: bytes | None
) -> None:
    reported = []
    monkeypatch.setattr(tensorrt_rtx._log, "warning", lambda event, **facts: reported.append((event, facts)))
    folder = open_cache(tmp_path, MADE_FOR)
    (folder / "engine").write_bytes(b"x")
    (folder / "made-for.json").unlink()
    if record is not None:
        (folder / "made-for.json").write_bytes(record)
    open_cache(tmp_path, MADE_FOR)
    assert not (folder / "engine").exists()
    ((event, facts),) = reported
    assert "compiled again" in event
    assert (
        f"card {'another' if record and b'card' in record else 'unknown'}, here one" in facts["differences"]
    )
