"""Training of an experiment, from its configuration to its last unit; it can be resumed at any time."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import FileLock, Timeout

from senoscope.engine.intensity import usual_saturation
from senoscope.engine.sessions import usable_cores
from senoscope_training.config import Config
from senoscope_training.dataset.cache import PixelCache
from senoscope_training.dataset.model import DataSet, Fold
from senoscope_training.dataset.ranges import measured_range, require_range
from senoscope_training.dataset.splits import make_folds, split_record
from senoscope_training.dataset.writing import is_synthetic
from senoscope_training.experiment.folder import (
    CONFIG_NAME,
    PROVENANCE_NAME,
    Experiment,
    ExperimentError,
    Provenance,
    RangeRecord,
    read_experiment,
)
from senoscope_training.experiment.plan import FoldData, TrainingJob
from senoscope_training.experiment.worker import run_training
from senoscope_training.networks.architectures import ARCHITECTURES, with_architectures
from senoscope_training.networks.seeds import derive_seed
from senoscope_training.networks.weights import WeightsPlan, plan_weights
from senoscope_training.versions import software_versions
from senoscope_training.workers.backend import backend_problem, start_backend
from senoscope_training.workers.files import write_atomic
from senoscope_training.workers.pool import run_jobs
from senoscope_training.workers.progress import Progress, Report, silent

_MAX_JOBS = 4
# Increased whenever the same configuration gives other results than before. 2: batch-norm statistics of
# random backbones per fold, copies of raw counts with `each_split`, the CNN from scratch as in the authors'
# code.
_PROCEDURE = 2


def run_experiment(config: Config, jobs: int | None = None, report: Report = silent) -> Experiment:
    """Train all units of an experiment that are not finished.

    After any interruption, the same call resumes the training, with the same results as without an
    interruption. ``jobs`` networks are trained in parallel, each in its own process; the default is by
    number of cores, at most four, and one if there is a GPU.

    Raises
    ------
    DataSetError, ExperimentError
        If nothing can be trained: the data set has faults, the folder belongs to another configuration or
        data set, another process is using it, or Keras' back end is not available.
    WeightsError, FitError, WorkerDied
        If the training fails; finished units are kept.
    """
    problem = backend_problem()
    if problem is not None:
        raise ExperimentError(problem)
    directory = config.directory
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExperimentError(f"another process is training {directory}") from None
    with lock:
        report(Progress("data", detail=str(config.data.path)))
        cache = PixelCache(directory)
        data_set = cache.read(config.data, config.input, report)
        folds = make_folds(data_set, config.split, derive_seed(config.seed, "folds"))
        plan = plan_weights(config.weights, config.weights_dir, config.networks)
        try:
            _require_same(config, data_set, plan)
        except ExperimentError:
            cache.delete()
            raise
        prepared = _prepare(config, data_set, folds, plan, np.load(cache.pixels, mmap_mode="r"))
        names = _names(config)
        workers = jobs or _default_jobs()
        threads = max(1, usable_cores() // min(workers, len(names)))
        todo = [
            TrainingJob(
                network=name,
                config=config,
                plan=plan,
                pixels=cache.pixels,
                labels=data_set.labels,
                groups=data_set.groups,
                files=tuple(entry.file for entry in data_set.entries),
                folds=prepared,
                threads=threads,
            )
            for name in names
        ]
        report(Progress("training", detail=f"{plan.description}; {directory}"))
        run_jobs(run_training, todo, workers, with_architectures(partial(start_backend, threads)), report)
        cache.delete()
        return read_experiment(directory)


def _names(config: Config) -> list[str]:
    """Return the names of the jobs, the longest first."""
    networks: Sequence[str] = () if set(config.systems) == {"scratch"} else config.networks
    names = sorted(networks, key=lambda name: -ARCHITECTURES[name].cost)
    return [*names, "scratch"] if "scratch" in config.systems else names


def _default_jobs() -> int:
    if Path("/dev/nvidia0").exists() or os.environ.get("CUDA_VISIBLE_DEVICES", "-1") not in {"", "-1"}:
        return 1  # one network uses the whole GPU
    return min(_MAX_JOBS, usable_cores())


def _require_same(config: Config, data_set: DataSet, plan: WeightsPlan) -> None:
    """Require that the experiment on disk has the same configuration, data set and initial weights."""
    path = config.directory / CONFIG_NAME
    if not path.is_file():
        return
    provenance: Provenance = json.loads((config.directory / PROVENANCE_NAME).read_text(encoding="utf-8"))
    if provenance.get("procedure", 1) != _PROCEDURE:
        raise ExperimentError(
            f"{config.directory} was started by another release, whose training procedure differs: give this "
            "experiment another `name`, or delete that folder"
        )
    stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    now = config.model_dump(mode="json")
    differing = sorted(key for key in now if now[key] != stored.get(key) and key not in {"runs_dir", "data"})
    if now["data"] | {"path": ""} != stored["data"] | {"path": ""}:
        differing.append("data")
    # More runs and further systems only add results.
    differing = [key for key in differing if key not in {"runs", "systems"}]
    if differing:
        raise ExperimentError(
            f"{config.directory} was started with another configuration: {', '.join(differing)} differ. "
            "Give this experiment another `name`, or delete that folder"
        )
    if provenance["data"]["sha256"] != data_set.sha256():
        raise ExperimentError(
            f"the data set at {config.data.path} has changed since {config.directory} was started: give the "
            "experiment another `name`, or delete that folder"
        )
    if provenance["weights"] != plan.description:
        raise ExperimentError(
            f"{config.directory} was started with {provenance['weights']}, but now there are "
            f"{plan.description}: give the experiment another `name`, or set `weights`"
        )


def _prepare(
    config: Config, data_set: DataSet, folds: Sequence[Fold], plan: WeightsPlan, pixels: Any
) -> tuple[FoldData, ...]:
    """Fit the intensity ranges, and write the configuration and the provenance of the experiment."""
    prepared = []
    ranges: dict[str, RangeRecord] = {}
    for fold in folds:
        train = np.asarray(pixels[fold.train])
        low, high = measured_range(train, config.normalization.k_iqr, padded=config.data.fit == "pad")
        require_range(low, high, config.data.channels, f"training FOVs of {fold.name}")
        prepared.append(FoldData(fold.name, fold.train, fold.test, low, high))
        ranges[fold.name] = {
            "low": low.tolist(),
            "high": high.tolist(),
            "saturated_p99": usual_saturation(train, high).tolist(),
        }
    labels = data_set.labels
    provenance: Provenance = {
        "data": {
            "path": str(config.data.path),
            "sha256": data_set.sha256(),
            "fovs": len(data_set),
            "synthetic": is_synthetic(data_set),
            "classes": dict(zip(data_set.classes, (int((~labels).sum()), int(labels.sum())), strict=True)),
        },
        "folds": split_record(data_set, tuple(folds)),
        "intensity_ranges": ranges,
        "weights": plan.description,
        "procedure": _PROCEDURE,
        "software": software_versions(),
        "host": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": usable_cores(),
            "python": platform.python_version(),
            "keras_backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        },
    }
    write_atomic(config.directory / PROVENANCE_NAME, json.dumps(provenance, indent=1) + "\n")
    # The configuration is written last: if it exists, the other files do too.
    settings = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_atomic(config.directory / CONFIG_NAME, settings)
    return tuple(prepared)
