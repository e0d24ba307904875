"""Measure the CUDA profile of the engine from a bundle small enough to carry to a GPU machine.

Timing does not depend on the weights' values, so the bundle holds the graphs without weights; they are
filled with seeded random numbers where they are measured::

    python benchmarks/gpu_engine.py bundle models/starter bundle/         # where the ensemble is
    python benchmarks/gpu_engine.py measure bundle/ result.json           # where the GPU is
    python benchmarks/gpu_engine.py measure bundle/ result.json --device cpu --repeats 3    # a rehearsal

The second command needs numpy, onnx, opencv, pydantic, platformdirs and onnxruntime-gpu. If PyTorch is
there, it is imported first so that its CUDA libraries are found.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

_KEPT_BYTES = 2048  # shapes, constants and biases of the head matter to the graph; weights do not
_BAR_MS, _AIM_MS = 24.0, 4.0


def bundle(model: Path, target: Path) -> None:
    """Write each network's graph with its large weights emptied."""
    target.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((model / "ensemble.json").read_text())
    for network in manifest["networks"]:
        graph = onnx.load(model / network["variants"][0]["file"])
        for tensor in graph.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and len(tensor.raw_data) > _KEPT_BYTES:
                tensor.raw_data = b""
        onnx.save(graph, target / f"{network['name']}.onnx")
    (target / "input.json").write_text(
        json.dumps(
            {
                "input": manifest["input"],
                "networks": [
                    {k: n[k] for k in ("name", "gradcam_grid", "feature_size")} for n in manifest["networks"]
                ],
            }
        )
    )
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {size / 1e6:.1f} MB")


def _fill(source: Path, target: Path, seed: int) -> None:
    model = onnx.load(source)
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and not tensor.raw_data and not tensor.float_data:
            shape = tuple(tensor.dims)
            fan_in = max(1, int(np.prod(shape[1:])))
            values = rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(2 / fan_in))
            tensor.raw_data = values.tobytes()
    onnx.save(model, target)


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


def measure(source: Path, result: Path, device: str, repeats: int) -> None:
    """Fill the graphs, run them every way that the engine can, and write the figures."""
    with contextlib.suppress(ImportError):
        import torch

        torch.zeros(1)
    import onnxruntime as ort

    from senoscope.engine.bound import BoundExecutor
    from senoscope.engine.cpu import CpuExecutor
    from senoscope.engine.executor import NetworkFile
    from senoscope.engine.gradcam import ensemble_map

    facts = json.loads((source / "input.json").read_text())
    height, width = facts["input"]["height"], facts["input"]["width"]
    channels = len(facts["input"]["channels"])
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 4000, (1, channels, height, width)).astype(np.float32)
    low, high = np.zeros(channels, np.float32), np.full(channels, 4000, np.float32)
    report: dict[str, Any] = {
        "device": device,
        "gpu": _gpu(),
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "repeats": repeats,
        "bar_p99_ms": _BAR_MS,
        "aim_ms": _AIM_MS,
        "networks": {},
        "ensemble": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for k, network in enumerate(facts["networks"]):
            path = Path(folder) / f"{network['name']}.onnx"
            _fill(source / path.name, path, seed=k)
            files.append(
                NetworkFile(network["name"], path, tuple(network["gradcam_grid"]), network["feature_size"])
            )
        reference = CpuExecutor(files)
        expected = reference.run(image, low, high)
        reference.close()

        def timed(nets: list[NetworkFile], **options: Any) -> tuple[dict[str, Any], list[Any]]:
            executor = BoundExecutor(nets, device=device, **options)  # type: ignore[arg-type]
            try:
                executor.warm_up(image, low, high)

                def one_fov() -> None:
                    outputs = executor.run(image, low, high)
                    grids = [output.gradcam[0] for output in outputs]
                    ensemble_map(
                        grids, np.array([output.probability[0] for output in outputs]), height, width
                    )

                return _percentiles(one_fov, repeats) | executor.describe(), executor.run(image, low, high)
            finally:
                executor.close()

        for file in files:
            for graphs in (True, False):
                label = "cuda_graph" if graphs else "plain"
                figures, _ = timed([file], cuda_graphs=graphs, schedule="sequential")
                report["networks"].setdefault(file.name, {})[label] = figures
        for graphs in (True, False):
            for schedule in ("sequential", "streams"):
                for tf32 in (False, True):
                    label = f"{'cuda_graph' if graphs else 'plain'}, {schedule}{', tf32' if tf32 else ''}"
                    figures, got = timed(files, cuda_graphs=graphs, schedule=schedule, tf32=tf32)
                    # Of the logit, because probabilities of random networks sit at 0 or 1.
                    figures["max_relative_logit_error"] = max(
                        float((abs(a.logit - b.logit) / abs(b.logit)).max())
                        for a, b in zip(got, expected, strict=True)
                    )
                    report["ensemble"][label] = figures
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{report['gpu']['name']}, onnxruntime {ort.__version__}")
    for name, ways in report["networks"].items():
        print(f"{name:20s}", *(f"{way} {f['p50_ms']:.2f}/{f['p99_ms']:.2f}" for way, f in ways.items()))
    for way, figures in report["ensemble"].items():
        print(
            f"ensemble {way:28s} p50 {figures['p50_ms']:.2f} p99 {figures['p99_ms']:.2f} ms, "
            f"logit off by {figures['max_relative_logit_error']:.1e}"
        )


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("bundle")
    making.add_argument("model", type=Path)
    making.add_argument("target", type=Path)
    measuring = commands.add_parser("measure")
    measuring.add_argument("source", type=Path)
    measuring.add_argument("result", type=Path)
    measuring.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    measuring.add_argument("--repeats", type=int, default=300)
    arguments = parser.parse_args()
    if arguments.command == "bundle":
        bundle(arguments.model, arguments.target)
    else:
        measure(arguments.source, arguments.result, arguments.device, arguments.repeats)


if __name__ == "__main__":
    main()
