"""Run every system of the paper twice on a small synthetic data set, timed, or with kills in between.

::

    python benchmarks/full_run.py FOLDER --result benchmarks/results/full_run.json            # timed
    python benchmarks/full_run.py FOLDER --kills 5 --result benchmarks/results/full_run_killed.json

The second compares its table with that of the first byte by byte: run both in the same folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

# With smaller images and fewer copies and epochs; the procedure is complete.
CONFIG = {
    "data": {"path": "data"},
    "input": {"height": 80, "width": 96},
    "split": {"by": "column"},
    "augmentation": {"copies": 1},
    "phase1": {"max_epochs": 60},
    "phase2": {"max_epochs": 2},
    "scratch": {"max_epochs": 60},
    "runs": 2,
    "weights": "random",
}
_TRAIN = (sys.executable, "-m", "senoscope_training.cli")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--within-s", type=float, default=1000, help="time within which the kills happen")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times of the kills")
    parser.add_argument("--result", type=Path)
    arguments = parser.parse_args()
    home = arguments.folder
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "data").exists():
        size = ["--train", "60", "--test", "30", "--height", "80", "--width", "96"]
        subprocess.run([*_TRAIN, "synthesize", str(home / "data"), *size], check=True)
    name = "killed" if arguments.kills else "whole"
    config = home / f"{name}.yaml"
    config.write_text(yaml.safe_dump({"name": name, **CONFIG}))
    rng = random.Random(arguments.seed)
    waits = [rng.uniform(5, 2 * arguments.within_s / max(1, arguments.kills)) for _ in range(arguments.kills)]
    began = time.perf_counter()
    with (home / f"{name}.log").open("wb") as log:
        for wait_s in waits:
            process = _start(config, log)
            try:
                process.wait(wait_s)
                break  # finished before the kill
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                print(f"killed after {wait_s:.0f} s", flush=True)
        process = _start(config, log)
        assert process.wait() == 0, f"see {home / f'{name}.log'}"
    report = {
        "minutes": round((time.perf_counter() - began) / 60, 1),
        "killed_after_s": [round(wait_s) for wait_s in waits],
        "report_files": sorted(
            str(path.relative_to(home / "runs" / name / "report"))
            for path in (home / "runs" / name / "report").rglob("*")
            if path.is_file()
        ),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    whole, killed = (home / "runs" / n / "report" / "metrics_per_run.csv" for n in ("whole", name))
    if arguments.kills:
        report["same_table"] = whole.read_bytes() == killed.read_bytes()
        scores = [sorted((home / "runs" / n).glob("split/*/*.json")) for n in ("whole", name)]
        report["same_predictions"] = all(
            json.loads(a.read_text())["score"] == json.loads(b.read_text())["score"]
            for a, b in zip(*scores, strict=True)
        )
    print(json.dumps(report, indent=2))
    if arguments.result:
        arguments.result.write_text(json.dumps(report, indent=2) + "\n")


def _start(config: Path, log: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*_TRAIN, "run", str(config)], stdout=log, stderr=log)  # type: ignore[call-overload]


if __name__ == "__main__":
    main()
