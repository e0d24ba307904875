"""Compare OpenVINO with the CPU executor, in one process.

Both take the same fields of view; they are run alternately, so that other load of the machine affects both.
The ratio of the medians is the result, with the largest deviations and the time to load::

    python benchmarks/engine_openvino.py models/starter --result benchmarks/results/engine_openvino.json
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from senoscope import Ensemble
from senoscope.engine.sessions import usable_cores
from senoscope_client.simulation.synthetic import synthesize

_DEVICES = ("cpu", "openvino")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    kinds = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    return f"{name or platform.processor()}: {', '.join(kinds)}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--fovs", type=int, default=20, help="fields of view whose outputs are compared")
    parser.add_argument("--result", type=Path)
    arguments = parser.parse_args()
    fovs = [synthesize(1, seed).pixels for seed in range(arguments.fovs)]
    took: dict[str, list[float]] = {name: [] for name in _DEVICES}
    load_s: dict[str, float] = {}
    apart = {"probability of a network": 0.0, "probability of the ensemble": 0.0, "map of the ensemble": 0.0}
    with ExitStack() as stack:
        ensembles = {}
        for name in _DEVICES:
            start = time.perf_counter()
            ensembles[name] = stack.enter_context(Ensemble.load(arguments.model, device=name))
            load_s[name] = round(time.perf_counter() - start, 2)
        for turn in range(arguments.repeats):
            predictions = []
            for name, ensemble in ensembles.items():
                start = time.perf_counter()
                (prediction,) = ensemble.predict(fovs[turn % len(fovs)])
                took[name].append((time.perf_counter() - start) * 1e3)
                predictions.append(prediction)
            for key, value in _deviations(*predictions).items():
                apart[key] = max(apart[key], value)
        places = {name: ensemble.describe() for name, ensemble in ensembles.items()}
    medians = {name: float(np.median(values)) for name, values in took.items()}
    ratios = np.array(took["openvino"]) / np.array(took["cpu"])
    report: dict[str, Any] = {
        "median_ms": {name: round(value, 1) for name, value in medians.items()},
        "minimum_ms": {name: round(min(values), 1) for name, values in took.items()},
        "openvino_to_cpu": {
            "ratio_of_medians": round(medians["openvino"] / medians["cpu"], 3),
            "median_of_paired_ratios": round(float(np.median(ratios)), 3),
        },
        "largest_deviation": {name: float(f"{value:.3g}") for name, value in apart.items()},
        "load_s": load_s,
        "repeats": arguments.repeats,
        "fovs": len(fovs),
        "arrangement": {
            name: {key: place[key] for key in ("provider", "workers", "threads_per_worker", "reason")}  # type: ignore[literal-required]
            for name, place in places.items()
        },
        "processor": _processor(),
        "cores": usable_cores(),
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=2))
    if arguments.result:
        arguments.result.write_text(json.dumps(report, indent=2) + "\n")


def _deviations(one: Any, other: Any) -> dict[str, float]:
    return {
        "probability of a network": float(np.abs(one.probabilities - other.probabilities).max()),
        "probability of the ensemble": abs(one.probability - other.probability),
        "map of the ensemble": float(np.abs(one.map() - other.map()).max()),
    }


if __name__ == "__main__":
    main()
