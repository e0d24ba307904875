"""Compare the speed of two checkouts of this repository, alternately within one run.

Each round runs every measurement with the one checkout and then with the other, in changing order, so that
other load of the machine affects both. ``ratio_of_medians`` and ``ratio_of_best`` compare the medians and the
smallest values, after / before: above 1 means slower. On a shared machine the smallest value is the better
estimate, because other load only adds time::

    git worktree add ../before COMMIT
    python benchmarks/compare.py --before ../before --model models/starter

The benchmarks in each checkout measure its own code. Both use the environment of this interpreter, so their
dependencies must be the same.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from senoscope_client.simulation.synthetic import synthesize
from support import miniature

Figures = dict[str, float]


def run_in(checkout: Path, *arguments: str) -> str:
    """Run Python with the packages of a checkout, and return what it prints."""
    folders = [str(checkout / name) for name in ("service", "clients", "training", "tests")]
    completed = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode:
        raise SystemExit(f"{checkout}: {' '.join(arguments)} failed:\n{completed.stderr[-2000:]}")
    return completed.stdout


def engine(checkout: Path, model: Path) -> Figures:
    """Measure one field of view through the seven networks."""
    report = json.loads(
        run_in(checkout, "benchmarks/engine_cpu.py", str(model), "--no-keras", "--repeats", "9")
    )
    return {"engine, ms per field of view": report["median_ms"]["engine"]}


def stream(checkout: Path, model: Path) -> Figures:
    """Measure frames of a stream and a posted stack, with an ensemble that needs almost no time."""
    options = ("--model", str(model), "--rate", "20", "--frames", "200", "--stack", "60")
    report: dict[str, Any] = json.loads(run_in(checkout, "benchmarks/stream_latency.py", *options))
    return {
        "send to result, p50 ms": report["send_to_result_ms"]["p50"],
        "overhead of a frame, p50 ms": report["overhead_ms"]["p50"],
        "stack of 60, s": report["posted_stack"]["seconds"],
        "start to ready, s": report["cold_start_s"],
    }


def metrics(checkout: Path) -> Figures:
    """Measure what metrics and traces cost."""
    printed = run_in(checkout, "benchmarks/metrics_cost.py", "--results", "5000")
    report = json.loads(printed[printed.index("{\n") :])  # log lines precede it
    return {f"{name.replace('_', ' ')}, p50": value["p50"] for name, value in report.items()}


def dataset(checkout: Path, folder: Path) -> Figures:
    """Measure the check of a data set."""
    began_s = time.perf_counter()
    run_in(checkout, "-m", "senoscope_training.cli", "check", str(folder))
    return {"check of 240 images, s": time.perf_counter() - began_s}


def write_dataset(folder: Path) -> None:
    """Write 240 synthetic images of two classes."""
    import tifffile

    for label in ("control", "senescent"):
        for plate in range(2):
            (folder / f"plate_{plate}" / label).mkdir(parents=True)
    for n in range(240):
        label = ("control", "senescent")[n % 2]
        path = folder / f"plate_{n // 2 % 2}" / label / f"fov_{n:03}.tif"
        noise = np.random.default_rng(n).integers(0, 20, (3, 250, 300), dtype=np.uint16)
        tifffile.imwrite(path, synthesize(n, n % 2).pixels + noise, metadata={"axes": "CYX"})


def _ratio(both: dict[str, list[float]], reduce: Callable[[list[float]], float]) -> float:
    return round(reduce(both["after"]) / reduce(both["before"]), 3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--model", type=Path, required=True, help="folder of seven networks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--result", type=Path)
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
    model = arguments.model.resolve()
    values: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        miniature.build(folder / "miniature")
        write_dataset(folder / "images")
        measurements: list[Callable[[Path], Figures]] = [
            lambda checkout: engine(checkout, model),
            *[lambda checkout: stream(checkout, folder / "miniature")] * 2,
            *[metrics] * 3,
            lambda checkout: dataset(checkout, folder / "images"),
        ]
        for turn in range(arguments.rounds):
            for measure in measurements:
                order = list(checkouts) if turn % 2 == 0 else list(reversed(checkouts))
                pair = {which: measure(checkouts[which]) for which in order}
                for which, figures in pair.items():
                    for figure, value in figures.items():
                        values.setdefault(figure, {"before": [], "after": []})[which].append(round(value, 3))
            print(f"round {turn + 1} of {arguments.rounds}", file=sys.stderr)
    report = {
        "commits": {
            which: subprocess.run(
                ["git", "-C", checkout, "rev-parse", "--short", "HEAD"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for which, checkout in checkouts.items()
        },
        "rounds": arguments.rounds,
        "ratio_of_medians": {name: _ratio(both, statistics.median) for name, both in values.items()},
        "ratio_of_best": {name: _ratio(both, min) for name, both in values.items()},
        "values": values,
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=2))
    if arguments.result:
        arguments.result.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
