"""Variants of ensembles in lower precisions: the gate's figures for each network, sizes and times.

    python benchmarks/variants.py measure MODEL WORK NETWORK [--data DIR --fit pad --grey]   # each network
    python benchmarks/variants.py collect WORK... --out benchmarks/results/variants.json

``measure`` makes both variants of one network as `senoscope-train variants` does, and keeps the outputs in
WORK; ``collect`` judges the networks that were measured, alone and as an ensemble.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from senoscope.engine.executor import OUTPUT_NAMES, NetworkFile
from senoscope.engine.gate import GateLimits
from senoscope.engine.manifest import Manifest
from senoscope.engine.sessions import CPU, Provider, create_session
from senoscope_training.commands.data_options import data_config
from senoscope_training.variants.fovs import COUNT, from_data_set, synthetic_for
from senoscope_training.variants.judge import Judgement, judge
from senoscope_training.variants.network_job import VariantJob, run_job
from senoscope_training.variants.write import VariantOptions, make_jobs, read_verified
from senoscope_training.workers.pool import run_jobs

PRECISIONS = ("fp16", "int8")
ROUNDS = 15


def measure(options: argparse.Namespace) -> None:
    options.work.mkdir(parents=True, exist_ok=True)
    manifest, digest = read_verified(options.model)
    if options.data is None:
        fovs = synthetic_for(manifest, COUNT)
    else:
        config = data_config(options.data, options.fit, options.grey, None, [])
        fovs = from_data_set(manifest, config, COUNT, print)
    chosen = VariantOptions(tuple(options.precisions), jobs=1)
    jobs, _ = make_jobs(options.model, manifest, options.work, fovs, chosen)
    job = next(job for job in jobs if job.name == options.network)
    (result,) = run_jobs(run_job, [job], 1, start, print)
    files = {"fp32": job.network.path, **{name: made.path for name, made in result.made.items()}}
    facts = {
        "bytes": {name: path.stat().st_size for name, path in files.items()},
        "cpu_ms": paired_times(job, files, fovs.measured[0]),
        "corrections": {name: made.corrections for name, made in result.made.items()},
    }
    content = {"manifest": manifest, "digest": digest, "fovs": fovs, "result": result, "facts": facts}
    kept = options.work / f"{job.name}.pickle"
    if kept.is_file():  # of another precision
        before = pickle.loads(kept.read_bytes())
        for part in ("made", "problems"):
            earlier = getattr(before["result"], part)
            others = {name: one for name, one in earlier.items() if name not in options.precisions}
            getattr(result, part).update(others)
        for name, values in facts.items():
            facts[name] = {**before["facts"].get(name, {}), **values}
    kept.write_bytes(pickle.dumps(content))


def start() -> None:
    """Start a worker, which needs no preparation."""


def paired_times(job: VariantJob, files: dict[str, Path], fov: np.ndarray) -> dict[str, float]:
    """Return the median time of each file for one FOV; the files take turns."""
    feeds = {"image": fov[None].astype(np.float32), "low": job.low, "high": job.high}
    sessions = {
        name: create_session(replace_path(job.network, path), Provider(CPU), threads=job.threads)
        for name, path in files.items()
    }
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            began = time.perf_counter()
            session.run(OUTPUT_NAMES, feeds)
            times[name].append((time.perf_counter() - began) * 1e3)
    return {name: round(float(np.median(some[2:])), 1) for name, some in times.items()}


def replace_path(network: NetworkFile, path: Path) -> NetworkFile:
    return replace(network, path=path)


def collect(options: argparse.Namespace) -> None:
    ensembles = {}
    for work in options.work:
        measured = {path.stem: pickle.loads(path.read_bytes()) for path in sorted(work.glob("*.pickle"))}
        first = next(iter(measured.values()))
        manifest, fovs = first["manifest"], first["fovs"]
        results = {n.name: measured[n.name]["result"] for n in manifest.networks if n.name in measured}
        missing = [n.name for n in manifest.networks if n.name not in measured]
        judged = {
            p: judge(manifest, results, p, fovs.labels, limits_for(manifest, results)) for p in PRECISIONS
        }
        ensembles[manifest.name] = {
            "digest": first["digest"],
            "fovs": fovs.source,
            "calibration_fovs": len(fovs.calibration),
            "not_measured": missing,
            "networks": {
                name: {
                    **measured[name]["facts"],
                    **{p: network_figures(manifest, judged[p], name) for p in PRECISIONS},
                }
                for name in results
            },
            # Only complete ensembles are judged as such.
            "ensemble": None if missing else {p: ensemble_figures(judged[p]) for p in PRECISIONS},
        }
    software = {name: version(name) for name in ("nncf", "onnx", "onnxruntime-gpu")}
    machine = {"cores": os.cpu_count(), "architecture": platform.machine(), "software": software}
    document = {"limits": GateLimits().__dict__, "machine": machine, "ensembles": ensembles}
    options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def limits_for(manifest: Manifest, results: dict) -> GateLimits:
    """Return limits under which each network has its share of those of the whole ensemble."""
    scale, limits = len(manifest.networks) / len(results), GateLimits()
    return replace(
        limits,
        max_abs_probability=limits.max_abs_probability * scale,
        p99_abs_probability=limits.p99_abs_probability * scale,
        flip_margin=limits.flip_margin * scale,
    )


def network_figures(manifest: Manifest, judged: Judgement, name: str) -> dict:
    """Return a network's agreement with fp32, and why it would be rejected even alone."""
    rejected = judged.rejected.get(name)
    agreement = rejected.agreement if rejected else judged.accepted[name].agreement
    if agreement is None:
        return {"agreement": None, "rejected_alone": list(rejected.reasons)}
    alone = GateLimits().for_network(len(manifest.networks)).reasons(agreement)
    return {"agreement": agreement.model_dump(), "rejected_alone": list(alone)}


def ensemble_figures(judged: Judgement) -> dict:
    if judged.ensemble is None:
        return {"agreement": None, "rejected": sorted(judged.rejected)}
    reasons = GateLimits().reasons(judged.ensemble)
    figures = {"agreement": judged.ensemble.model_dump(), "reasons": list(reasons)}
    return {**figures, "accepted": sorted(judged.accepted), "rejected": sorted(judged.rejected)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("measure")
    one.add_argument("model", type=Path)
    one.add_argument("work", type=Path)
    one.add_argument("network")
    one.add_argument("--data", type=Path)
    one.add_argument("--fit", default="refuse")
    one.add_argument("--grey", action="store_true")
    one.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    one.set_defaults(run=measure)
    several = commands.add_parser("collect")
    several.add_argument("work", type=Path, nargs="+")
    several.add_argument("--out", type=Path, required=True)
    several.set_defaults(run=collect)
    chosen = parser.parse_args()
    chosen.run(chosen)
