"""Building of an ensemble's folder: networks in worker processes, then the manifest, then all at once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from senoscope.engine.manifest import MANIFEST_NAME, Manifest
from senoscope.engine.sessions import usable_cores
from senoscope_training.export.publish import NetworkJob
from senoscope_training.networks.architectures import ARCHITECTURES, with_architectures
from senoscope_training.workers.pool import run_jobs
from senoscope_training.workers.progress import Report
from senoscope_training.workers.tensorflow import start_tensorflow

Job = TypeVar("Job", bound=NetworkJob)
Result = TypeVar("Result")

CITATION = "Sorrentino et al. 2023, Front. Chem. 11:1213981, doi:10.3389/fchem.2023.1213981"
_MAX_PARALLEL = 4  # a job takes up to 4 GB of memory


def require_absent(target: Path, *, force: bool) -> None:
    """Raise FileExistsError if a folder exists, unless ``force`` allows to replace it."""
    if target.exists() and not force:
        raise FileExistsError(f"{target} already exists; pass --force to replace it, or choose another name")


def build_ensemble_folder(
    target: Path,
    networks: Sequence[str],
    make_jobs: Callable[[Path, int], list[Job]],
    run: Callable[[Job], Result],
    describe: Callable[[Path, dict[str, Result]], Manifest],
    *,
    parallel: int | None,
    force: bool,
    report: Report,
    finish: Callable[[Path, Manifest], Path] = lambda folder, _: folder,
) -> Manifest:
    """Build an ensemble in a temporary folder, which is renamed to ``target`` when it is complete.

    Therefore the ensemble is either complete or does not exist, even after an interruption, or if another
    process builds it at the same time.

    Parameters
    ----------
    networks : sequence of str
        Names of the networks, in the order of the manifest.
    make_jobs : callable
        Returns the jobs of the networks, from the ensemble's folder and the number of threads of each job.
        It may write further files beside that folder, which are deleted at the end.
    run : callable
        Runs a job in a worker process and writes the network's file; a function of a module.
    describe : callable
        Returns the manifest, from the ensemble's folder and the results of the networks.
    parallel : int, optional
        Number of worker processes; default: by number of cores, at most four.
    finish : callable
        Called with the folder and the manifest when both are complete; returns the folder to publish.

    Raises
    ------
    FileExistsError
        If ``target`` exists (without ``force``), or cannot be created.
    WorkerDied
        If a worker process is killed.
    """
    require_absent(target, force=force)
    parallel = parallel or min(_MAX_PARALLEL, usable_cores(), len(networks))
    threads = max(1, usable_cores() // parallel)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        folder = temporary / "ensemble"
        folder.mkdir()
        # The slowest start first.
        jobs = sorted(make_jobs(folder, threads), key=lambda job: -ARCHITECTURES[job.name].cost)
        start = with_architectures(partial(start_tensorflow, threads))
        made = run_jobs(run, jobs, parallel, start, report)
        results = {job.name: result for job, result in zip(jobs, made, strict=True)}
        manifest = describe(folder, {name: results[name] for name in networks})
        (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8", newline="\n")
        _move_into_place(finish(folder, manifest), target, temporary / "old", force=force)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _move_into_place(build: Path, target: Path, old: Path, *, force: bool) -> None:
    """Rename a finished folder to ``target``, and an existing one to ``old``."""
    if force and target.exists():
        target.replace(old)
    try:
        build.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.replace(target)
        raise FileExistsError(
            f"{target} cannot be created: {error}; another process may have created it in the meantime"
        ) from error
