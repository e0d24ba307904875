"""Measure the CUDA executor of the engine with a bundle that is small enough to copy to a GPU machine.

Timing does not depend on the values of the weights, so the bundle contains the graphs without their large
weights, also of its fp16 files. On the GPU machine the weights are drawn from a seed, and the CPU provider
computes the expected values of the test vectors. The result is a regular ensemble; loading it compares CUDA
with these values. Networks that are bundled whole keep their weights: only their deviations mean something::

    python benchmarks/gpu_engine.py bundle models/starter bundle/ --whole mobilenet    # where the ensemble is
    python benchmarks/gpu_engine.py fill bundle/ models/drawn             # on the GPU machine
    python benchmarks/gpu_engine.py measure models/drawn result.json
    python benchmarks/gpu_engine.py measure models/drawn result.json --device cpu --repeats 3   # a test run

The last two need numpy, onnx, opencv, pydantic, platformdirs and onnxruntime-gpu. If PyTorch is installed, it
is imported first so that its CUDA libraries are found.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import platform
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

_KEPT_BYTES = 8192  # larger weights are kernels, whose values do not matter
_KERNELS = ("fp32", "fp16")  # precisions of files
_DTYPES = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
_LIMIT_MS, _TARGET_MS = 24.0, 4.0
_BATCHES = (4, 16)
_IDLE_S = (0.02, 0.5, 3.0)


def bundle(model: Path, target: Path, whole: list[str]) -> None:
    """Copy an ensemble without the large weights of its networks; mean and deviation are stored instead."""
    target.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((model / "ensemble.json").read_text())
    for network in manifest["networks"]:
        network["variants"] = [one for one in network["variants"] if one["precision"] in _KERNELS]
        for variant in network["variants"]:
            graph = onnx.load(model / variant["file"])
            for tensor in graph.graph.initializer if network["name"] not in whole else ():
                dtype = _DTYPES.get(tensor.data_type)
                if dtype is not None and len(tensor.dims) > 1 and len(tensor.raw_data) > _KEPT_BYTES:
                    values = np.frombuffer(tensor.raw_data, dtype).astype(np.float32)
                    tensor.doc_string = json.dumps([float(values.mean()), float(values.std())])
                    tensor.raw_data = b""
            onnx.save(graph, target / variant["file"])
    for vector in manifest["test_vectors"]:
        shutil.copy(model / vector["file"], target)
    (target / "ensemble.json").write_text(json.dumps(manifest))
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {size / 1e6:.1f} MB")


def fill(source: Path, target: Path) -> None:
    """Draw the weights of a bundle, compute its test vectors on the CPU provider, and write the ensemble."""
    _find_cuda()
    from senoscope.engine.cpu import CpuExecutor

    shutil.copytree(source, target, dirs_exist_ok=True)
    manifest = json.loads((target / "ensemble.json").read_text())
    for k, network in enumerate(manifest["networks"]):
        for variant in network["variants"]:
            path = target / variant["file"]
            model = onnx.load(path)
            if _draw(model, k):
                _draw_head(
                    {tensor.name: tensor for tensor in model.graph.initializer}, np.random.default_rng(k)
                )
            onnx.save(model, path)
            content = path.read_bytes()
            variant |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    channels = manifest["normalization"]["channels"]
    low, high = (np.array([channel[end] for channel in channels], np.float32) for end in ("low", "high"))
    executor = CpuExecutor(_files(target, manifest))
    try:
        for vector in manifest["test_vectors"]:
            image = np.load(target / vector["file"])[None].astype(np.float32)
            answers = [float(output.probability[0]) for output in executor.run(image, low, high)]
            names = [network["name"] for network in manifest["networks"]]
            vector["expected"]["networks"] = dict(zip(names, answers, strict=True))
            vector["expected"]["probability"] = float(np.mean(answers))
            print(vector["file"], *(f"{answer:.4f}" for answer in answers))
    finally:
        executor.close()
    (target / "ensemble.json").write_text(json.dumps(manifest))


def _draw(model: Any, k: int) -> bool:
    """Draw the missing weights of network ``k``, the same in all its files; return whether any were."""
    missing = [tensor for tensor in model.graph.initializer if tensor.doc_string]
    for tensor in missing:
        rng = np.random.default_rng([k, zlib.crc32(tensor.name.encode())])
        mean, spread = json.loads(tensor.doc_string)
        values = rng.standard_normal(tuple(tensor.dims), np.float32) * np.float32(spread) + np.float32(mean)
        tensor.raw_data = values.astype(_DTYPES[tensor.data_type]).tobytes()
    return bool(missing)


def _draw_head(tensors: dict[str, Any], rng: np.random.Generator) -> None:
    """Draw a head that is active for any input, with logits around 0: others would hide errors."""
    inputs, units = tensors["head/w1"].dims
    kernel = rng.standard_normal((inputs, units), np.float32) * np.float32(0.05 / np.sqrt(inputs))
    values = {"w1": kernel, "b1": np.ones(units), "w2": np.full(units, 0.5), "b2": np.full(1, -0.5 * units)}
    for name, array in values.items():
        tensors[f"head/{name}"].raw_data = array.astype(np.float32).tobytes()


def _find_cuda() -> None:
    with contextlib.suppress(ImportError):
        import torch

        torch.zeros(1)


def _files(model: Path, manifest: dict[str, Any], precision: str = "fp32") -> list[Any]:
    """Return the networks in a precision; without a file of it, a network runs in fp32."""
    from senoscope.engine.executor import NetworkFile

    spec = manifest["input"]
    shape = (len(spec["channels"]), spec["height"], spec["width"])
    files = []
    for network in manifest["networks"]:
        variants = {one["precision"]: one["file"] for one in network["variants"]}
        kind = precision if precision in {*variants, "tf32"} else "fp32"
        grid = tuple(network["gradcam_grid"])
        path = model / variants["fp32" if kind == "tf32" else kind]
        files.append(NetworkFile(network["name"], path, grid, network["feature_size"], shape, kind))  # type: ignore[arg-type]
    return files


def _percentiles(call: Callable[[], Any], repeats: int) -> dict[str, float]:
    for _ in range(max(3, repeats // 10)):
        call()
    took = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        took.append((time.perf_counter() - start) * 1e3)
    p50, p99 = np.percentile(took, [50, 99])
    return {"p50_ms": round(float(p50), 4), "p99_ms": round(float(p99), 4), "min_ms": round(min(took), 4)}


def _gpu() -> dict[str, str]:
    query = "name,driver_version,clocks.max.sm,power.limit"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        line = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()[0]
        return dict(zip(query.split(","), line.split(", "), strict=True))
    return {"name": "none"}


@dataclass
class _Workload:
    """The input and the expected output of all measurements."""

    files: dict[str, list[Any]]
    image: Any
    low: Any
    high: Any
    expected: list[Any]
    device: str
    repeats: int
    height: int
    width: int

    def one_fov(self, executor: Any) -> None:
        """Compute what a live frame needs: the networks and the ensemble's map."""
        self.map(executor.run(self.image, self.low, self.high))

    def map(self, outputs: list[Any]) -> None:
        from senoscope.engine.gradcam import ensemble_map

        probabilities = np.array([output.probability[0] for output in outputs])
        ensemble_map([output.gradcam[0] for output in outputs], probabilities, self.height, self.width)

    def errors(self, outputs: list[Any]) -> dict[str, Any]:
        """Return the errors compared with the CPU provider, relative to the largest value."""

        def worst(of: str) -> float:
            return max(
                float(np.abs(getattr(a, of) - getattr(b, of)).max() / max(np.abs(getattr(b, of)).max(), 1e-6))
                for a, b in zip(outputs, self.expected, strict=True)
            )

        apart = {
            file.name: round(float(np.abs(a.probability - b.probability).max()), 6)
            for file, a, b in zip(self.files["fp32"], outputs, self.expected, strict=True)
        }
        relative = {f"max_relative_{of}_error": worst(of) for of in ("logit", "gradcam", "features")}
        return {**relative, "max_probability_error": apart}


def _measure_variant(workload: _Workload, options: dict[str, Any], *, full: bool) -> dict[str, Any]:
    from senoscope.engine.bound import BoundExecutor

    start = time.perf_counter()
    files = workload.files[options.get("precision", "fp32")]
    others = {name: value for name, value in options.items() if name != "precision"}
    executor = BoundExecutor(files, device=workload.device, **others)  # type: ignore[arg-type]
    opened = time.perf_counter()
    try:
        executor.warm_up(workload.image.astype(np.float32), workload.low, workload.high)
        report: dict[str, Any] = {
            "open_s": round(opened - start, 2),
            "warm_up_s": round(time.perf_counter() - opened, 2),
            "chosen_schedule": executor.schedule,
            "fp16_files": sum(file.precision == "fp16" for file in files),
            **workload.errors(executor.run(workload.image, workload.low, workload.high)),
        }
        for schedule in ("sequential", "streams"):
            executor.schedule = schedule  # type: ignore[assignment]
            report[schedule] = _percentiles(lambda: workload.one_fov(executor), workload.repeats)
        executor.schedule = report["chosen_schedule"]
        if full:
            report["networks_p50_ms"] = _each_network(executor, workload)
            report["stages_p50_ms"] = _stages(executor, workload)
            report["after_idle_ms"] = _after_idle(executor, workload)
            report["batches"] = {str(n): _batch(executor, workload, n) for n in _BATCHES}
        return report
    finally:
        executor.close()


def _each_network(executor: Any, workload: _Workload) -> dict[str, float]:
    return {
        file.name: round(
            1e3 * float(np.median([executor.run_one(k) for _ in range(max(3, workload.repeats // 5))])), 4
        )
        for k, file in enumerate(workload.files["fp32"])
    }


def _stages(executor: Any, workload: _Workload) -> dict[str, float]:
    """Measure the parts of a run separately."""
    buffers, _ = executor._bound(workload.image.shape)
    outputs = executor.run(workload.image, workload.low, workload.high)
    as_floats = workload.image.astype(np.float32)
    repeats = max(3, workload.repeats // 2)
    calls: dict[str, Callable[[], Any]] = {
        "upload and conversion": lambda: buffers.upload(workload.image, executor._casts),
        "upload of floats": lambda: buffers.upload(as_floats, executor._casts),
        "download": buffers.download,
        "map": lambda: workload.map(outputs),
    }
    return {name: _percentiles(call, repeats)["p50_ms"] for name, call in calls.items()}


def _after_idle(executor: Any, workload: _Workload) -> dict[str, dict[str, float]]:
    """Measure a field of view after a pause, without `keep_warm` and with it every 20 ms."""
    report = {}
    for warm in (False, True):
        for pause_s in _IDLE_S[warm:]:  # the shortest is the interval of keep_warm itself
            took = []
            for _ in range(10 if pause_s < 1 else 3):
                end = time.perf_counter() + pause_s
                while warm and time.perf_counter() < end - 0.02:
                    time.sleep(0.02)
                    executor.keep_warm()
                time.sleep(max(0.0, end - time.perf_counter()))
                start = time.perf_counter()
                workload.one_fov(executor)
                took.append((time.perf_counter() - start) * 1e3)
            name = f"{pause_s:g} s, {'kept warm' if warm else 'left alone'}"
            report[name] = {"p50": round(float(np.median(took)), 3), "max": round(max(took), 3)}
    return report


def _batch(executor: Any, workload: _Workload, size: int) -> dict[str, float]:
    images = np.repeat(workload.image, size, axis=0)
    start = time.perf_counter()
    executor.run(images, workload.low, workload.high)
    first_s = time.perf_counter() - start
    figures = _percentiles(
        lambda: executor.run(images, workload.low, workload.high), max(3, workload.repeats // 10)
    )
    return {"first_s": round(first_s, 3), **figures, "fovs_per_s": round(1e3 * size / figures["p50_ms"], 1)}


_CHANNELS_FIRST, _FUSED_BIAS = {"prefer_nhwc": "0"}, {"fuse_conv_bias": "1"}
_VARIANTS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "tf32": {"precision": "tf32"},
    "fp16": {"precision": "fp16"},
    "fp32, no graphs": {"cuda_graphs": False},
    "fp32, exhaustive search": {"provider_options": {"cudnn_conv_algo_search": "EXHAUSTIVE"}},
    "tf32, channels first": {"precision": "tf32", "provider_options": _CHANNELS_FIRST},
    "tf32, fused bias": {"precision": "tf32", "provider_options": _FUSED_BIAS},
    "fp16, channels first": {"precision": "fp16", "provider_options": _CHANNELS_FIRST},
    "fp16, fused bias": {"precision": "fp16", "provider_options": _FUSED_BIAS},
}
_IN_FULL = ("fp32", "tf32", "fp16")


def measure(model: Path, result: Path, device: str, repeats: int, ways: list[str], *, brief: bool) -> None:
    """Measure an ensemble with each variant of the engine's options; the result is written after each."""
    _find_cuda()
    import onnxruntime as ort

    from senoscope.engine.cpu import CpuExecutor

    manifest = json.loads((model / "ensemble.json").read_text())
    channels = manifest["normalization"]["channels"]
    low, high = (np.array([channel[end] for channel in channels], np.float32) for end in ("low", "high"))
    image = np.load(model / manifest["test_vectors"][0]["file"])[None]
    files = {precision: _files(model, manifest, precision) for precision in _IN_FULL}
    reference = CpuExecutor(files["fp32"])
    expected = reference.run(image, low, high)
    reference.close()
    height, width = manifest["input"]["height"], manifest["input"]["width"]
    workload = _Workload(files, image, low, high, expected, device, repeats, height, width)
    report: dict[str, Any] = {
        "device": device,
        "gpu": _gpu(),
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "repeats": repeats,
        "pixels": str(image.dtype),
        "bar_p99_ms": _LIMIT_MS,
        "aim_ms": _TARGET_MS,
        "ways": {},
    }
    result.parent.mkdir(parents=True, exist_ok=True)
    print(f"{report['gpu']['name']}, onnxruntime {ort.__version__}", flush=True)
    for way in ways:
        try:
            figures = _measure_variant(workload, _VARIANTS[way], full=way in _IN_FULL and not brief)
        except Exception as error:  # a variant that this device does not support must not stop the others
            figures = {"error": f"{type(error).__name__}: {error}"}
        report["ways"][way] = figures
        result.write_text(json.dumps(report, indent=2) + "\n")
        _print(way, figures)


def _print(way: str, figures: dict[str, Any]) -> None:
    if "error" in figures:
        print(f"{way:30s} {figures['error'][:400]}", flush=True)
        return
    for schedule in ("sequential", "streams"):
        print(
            f"{way:30s} {schedule:10s} p50 {figures[schedule]['p50_ms']:.2f} "
            f"p99 {figures[schedule]['p99_ms']:.2f} ms",
            flush=True,
        )
    rest = {k: v for k, v in figures.items() if k not in ("sequential", "streams")}
    print(" " * 30, json.dumps(rest), flush=True)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("bundle")
    making.add_argument("model", type=Path)
    making.add_argument("target", type=Path)
    making.add_argument("--whole", nargs="*", default=[], help="networks that keep their weights")
    filling = commands.add_parser("fill")
    filling.add_argument("source", type=Path)
    filling.add_argument("target", type=Path)
    measuring = commands.add_parser("measure")
    measuring.add_argument("model", type=Path)
    measuring.add_argument("result", type=Path)
    measuring.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    measuring.add_argument("--repeats", type=int, default=500)
    measuring.add_argument("--brief", action="store_true", help="times only, no details of the precisions")
    measuring.add_argument("--ways", nargs="*", choices=[*_VARIANTS], default=[*_VARIANTS])
    arguments = parser.parse_args()
    if arguments.command == "bundle":
        bundle(arguments.model, arguments.target, arguments.whole)
    elif arguments.command == "fill":
        fill(arguments.source, arguments.target)
    else:
        measure(
            arguments.model,
            arguments.result,
            arguments.device,
            arguments.repeats,
            arguments.ways,
            brief=arguments.brief,
        )


if __name__ == "__main__":
    main()
