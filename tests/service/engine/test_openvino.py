"""Networks run by OpenVINO."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from senoscope.engine import DeviceError, Ensemble, EnsembleError, openvino
from senoscope.engine.cancellation import Cancellation
from senoscope.engine.devices import DEVICES
from senoscope.engine.executor import NetworkFile
from senoscope.engine.manifest import sha256_of
from senoscope.engine.openvino import OpenVinoExecutor
from support import miniature as mini

LOW, HIGH = np.full(3, mini.LOW, np.float32), np.full(3, mini.HIGH, np.float32)


def file_of(miniature: Path, k: int = 0) -> NetworkFile:
    path = miniature / f"{mini.NAMES[k]}.onnx"
    return NetworkFile(mini.NAMES[k], path, mini.GRIDS[k], mini.FEATURES, (3, 250, 300))


def edit_network(miniature: Path, folder: Path, change) -> Path:
    """Change the first network of a copy of the ensemble."""
    directory = Path(shutil.copytree(miniature, folder / "copy"))
    path = directory / f"{mini.NAMES[0]}.onnx"
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    manifest = json.loads((directory / "ensemble.json").read_text())
    manifest["networks"][0]["variants"][0]["sha256"] = sha256_of(path)
    (directory / "ensemble.json").write_text(json.dumps(manifest))
    return directory


def in_thread(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a function in another thread: opening a network makes its thread take denormals as zero."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments, **options).result()


def test_it_agrees_with_onnx_runtime(miniature: Path) -> None:
    stack = np.random.default_rng(5).integers(0, 1100, (3, 3, 250, 300)).astype(np.uint16)
    with Ensemble.load(miniature, device="cpu") as ensemble:
        expected = ensemble.predict(stack)
    with Ensemble.load(miniature, device="openvino", threads=2, largest_batch=4) as ensemble:
        facts = ensemble.describe()
        got = ensemble.predict(stack)
        assert ensemble.predict(stack[1])[0].probabilities == pytest.approx(got[1].probabilities, abs=1e-5)
    assert facts["device"] == "openvino"
    assert facts["reason"].startswith("OpenVINO on ")
    assert facts["reason"].endswith(", as configured")
    for a, b in zip(expected, got, strict=True):
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-4)
        for one, other in zip(a.gradcams, b.gradcams, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4 * max(1.0, float(one.max())))


def test_fp32_is_not_computed_in_bf16(miniature: Path) -> None:
    """OpenVINO does so by itself where the CPU has instructions for it."""
    import openvino as runtime

    core = runtime.Core()
    model = core.read_model(file_of(miniature).path)
    for precision in ("fp32", "fp16", "int8"):
        compiled = in_thread(core.compile_model, model, "CPU", openvino._configuration(False, precision, 1))
        used = {
            node.get_rt_info()["runtimePrecision"].value for node in compiled.get_runtime_model().get_ops()
        }
        assert "f32" in used
        assert not used & {"bf16", "f16"}
    assert openvino._configuration(True, "fp16", 1)["INFERENCE_PRECISION_HINT"] == "f16"
    assert openvino._configuration(True, "fp32", 1)["INFERENCE_PRECISION_HINT"] == "f32"


def test_another_precision_than_configured_is_an_error(
    miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = openvino._configuration

    def forgetful(*arguments: object) -> dict[str, object]:
        return configuration(*arguments) | {"INFERENCE_PRECISION_HINT": "f16"}

    import openvino as runtime

    compile_model = runtime.Core.compile_model

    def ignore_hint(core: object, model: object, target: str, options: dict[str, object]) -> object:
        return compile_model(core, model, target, options | {"INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(openvino, "_configuration", forgetful)
    monkeypatch.setattr(runtime.Core, "compile_model", ignore_hint)
    with pytest.raises(DeviceError, match=r"was to be computed in f16, but OpenVINO selected f32"):
        OpenVinoExecutor([file_of(miniature)])


def test_a_gpu_is_chosen_before_the_cpu() -> None:
    assert openvino._choose(["CPU"]) == "CPU"
    assert openvino._choose(["CPU", "GPU", "NPU"]) == "GPU"
    assert openvino._choose(["CPU", "GPU.0", "GPU.1", "NPU"]) == "GPU.0"
    with pytest.raises(DeviceError, match="neither a GPU nor a CPU, only: NPU"):
        openvino._choose(["NPU"])


def test_an_operator_that_it_does_not_know_is_an_error(miniature: Path, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].op_type = "Sqeeze"

    directory = edit_network(miniature, tmp_path, change)
    with pytest.raises(DeviceError, match=rf"OpenVINO cannot run {mini.NAMES[0]}\.onnx: .*Sqeeze"):
        Ensemble.load(directory, device="openvino")


def test_a_graph_that_differs_from_the_manifest_is_an_error(miniature: Path, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.output[3].type.tensor_type.shape.dim[1].dim_value = mini.FEATURES
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "spare"))
        model.graph.node.append(helper.make_node("Concat", ["features", "features"], ["twice"], axis=1))
        model.graph.output[3].CopyFrom(
            helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["N", 2 * mini.FEATURES])
        )

    directory = edit_network(miniature, tmp_path, change)
    with pytest.raises(EnsembleError, match=r"has inputs .* and outputs .*'twice'"):
        Ensemble.load(directory, device="openvino")


def run_for_ever(executor: OpenVinoExecutor, batch: np.ndarray) -> None:
    while True:
        executor.run(batch, LOW, HIGH)


def test_closing_and_cancelling_end_a_run(miniature: Path) -> None:
    batch = np.zeros((64, 3, 250, 300), np.float32)
    cancellation = Cancellation()
    for stop in (None, cancellation):
        executor = OpenVinoExecutor([file_of(miniature, k) for k in range(7)], cancellation=cancellation)
        executor.run(batch[:1], LOW, HIGH)
        end = executor.close if stop is None else lambda: cancellation.cancel(KeyError("the reason"))
        timer = threading.Timer(0.01, end)
        timer.start()
        with pytest.raises(RuntimeError, match=r"cancel|interrupt|shutdown"):
            run_for_ever(executor, batch)
        timer.join()
        executor.close()
        executor.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("engine")]


def test_a_load_that_was_cancelled_before_compiles_nothing(miniature: Path) -> None:
    cancellation = Cancellation()
    cancellation.cancel(KeyError("the reason"))
    with pytest.raises(KeyError, match="the reason"):
        OpenVinoExecutor([file_of(miniature)], cancellation=cancellation)


def test_its_telemetry_is_never_imported() -> None:
    program = "import sys; from senoscope.engine.openvino import problem; assert problem() is None; "
    program += "print(*(name for name in sys.modules if name.startswith('openvino_telemetry')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "\n"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, miniature: Path) -> None:
    monkeypatch.setattr(openvino.importlib.util, "find_spec", lambda name: None)
    assert "senoscope[openvino]" in str(DEVICES["openvino"].problem())
    with pytest.raises(DeviceError, match=r'--device openvino: .*pip install "senoscope\[openvino\]"'):
        Ensemble.load(miniature, device="openvino")
