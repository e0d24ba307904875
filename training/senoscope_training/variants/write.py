"""Writing of variants and reference fields of view into the folder of an ensemble.

Files get names that contain their hash, so that a file that the manifest lists is never replaced by another:
new files are moved in first, then the manifest is replaced, then files that it does not list are removed. An
interruption between these steps leaves an ensemble that can be loaded; the next call removes its files.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from filelock import FileLock, Timeout

from senoscope.engine.errors import EnsembleError
from senoscope.engine.executor import NetworkFile
from senoscope.engine.gate import GateLimits
from senoscope.engine.manifest import (
    MANIFEST_NAME,
    Manifest,
    Network,
    Variant,
    read_manifest,
    sha256_of,
    verify_file,
)
from senoscope.engine.manifest_variants import Reference
from senoscope.engine.onnx_file import refuse_external_data
from senoscope.engine.precision import FilePrecision
from senoscope.engine.sessions import usable_cores
from senoscope_training.variants.card import write_section
from senoscope_training.variants.errors import VariantError
from senoscope_training.variants.fovs import VariantFovs
from senoscope_training.variants.int8 import require_nncf
from senoscope_training.variants.judge import Judgement, judge
from senoscope_training.variants.network_job import Correction, VariantJob, VariantResult, run_job
from senoscope_training.workers.files import write_atomic
from senoscope_training.workers.pool import run_jobs
from senoscope_training.workers.progress import Progress, Report, silent

_MAX_PARALLEL = 4
_MIN_FOVS = 4
_OWN_FILE = re.compile(r".+\.(fp16|int8)-[0-9a-f]{12}\.onnx|reference-[0-9a-f]{12}\.np[yz]")
_PARTIAL = ".variants-"
_CORRECTED = "_corrected"  # of a metric: 1 if a correction is used


@dataclass(frozen=True)
class VariantOptions:
    """Options for making variants.

    Attributes
    ----------
    precisions : tuple of str
        Of the variants; none: only reference fields of view are written.
    limits : GateLimits
        Of the ensemble.
    jobs : int, optional
        Worker processes; default: by number of cores, at most four.
    """

    precisions: tuple[FilePrecision, ...] = ("fp16",)
    limits: GateLimits = field(default_factory=GateLimits)
    jobs: int | None = None


def read_verified(folder: Path) -> tuple[Manifest, str]:
    """Read the manifest of an ensemble, check its fp32 files and test vectors, and return its digest too.

    Variants and reference fields of view are not checked, because they are replaced.

    Raises
    ------
    EnsembleError
        If a file is missing or has another content.
    """
    manifest, digest = read_manifest(folder)
    for network in manifest.networks:
        variant = _fp32_of(network, folder)
        verify_file(folder / variant.file, variant.sha256)
        refuse_external_data(folder / variant.file)
    for vector in manifest.test_vectors:
        verify_file(folder / vector.file, vector.sha256)
    return manifest, digest


def write_variants(
    folder: Path, fovs: VariantFovs, options: VariantOptions | None = None, report: Report = silent
) -> tuple[Manifest, dict[FilePrecision, Judgement]]:
    """Replace the variants and the reference of an ensemble; return its manifest and all figures.

    Raises
    ------
    EnsembleError
        If a file of the ensemble is missing or wrong.
    VariantError
        If NNCF is missing, if there are too few fields of view, or if another process changes the ensemble.
    WorkerDied
        If a worker process is killed.
    """
    options = options or VariantOptions()
    if len(fovs.measured) < _MIN_FOVS and options.precisions:
        raise VariantError(f"{fovs.source} are too few to measure variants on: pass at least {_MIN_FOVS}")
    if "int8" in options.precisions:
        require_nncf()
    manifest, digest = read_verified(folder)
    try:
        with FileLock(folder.parent / f".{folder.name}.variants.lock", timeout=0):
            return _write(folder, manifest, digest, fovs, options, report)
    except Timeout:
        raise VariantError(
            f"another process makes variants of {folder}: wait until it has finished"
        ) from None


def _write(
    folder: Path,
    manifest: Manifest,
    digest: str,
    fovs: VariantFovs,
    options: VariantOptions,
    report: Report,
) -> tuple[Manifest, dict[FilePrecision, Judgement]]:
    for leftover in folder.glob(f"{_PARTIAL}*"):  # its process has ended: the lock is held here
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder))
    try:
        results = _run(folder, manifest, temporary, fovs, options, report)
        judged = {
            precision: judge(manifest, results, precision, fovs.labels, options.limits)
            for precision in options.precisions
        }
        updated = _move_in(folder, temporary, manifest, results, judged, fovs)
        if read_manifest(folder)[1] != digest:
            raise VariantError(f"{folder} was changed by another process in the meantime: run this again")
        write_atomic(folder / MANIFEST_NAME, updated.to_json())
        write_section(folder, updated)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_unlisted(folder)
    return updated, judged


def make_jobs(
    folder: Path, manifest: Manifest, directory: Path, fovs: VariantFovs, options: VariantOptions
) -> tuple[list[VariantJob], int]:
    """Write the fields of view into a directory; return the jobs, the largest first, and the workers."""
    np.save(directory / "measured.npy", fovs.measured)
    np.save(directory / "calibration.npy", fovs.calibration)
    parallel = options.jobs or min(_MAX_PARALLEL, usable_cores(), len(manifest.networks))
    low, high = (
        np.array([getattr(channel, side) for channel in manifest.normalization.channels], np.float32)
        for side in ("low", "high")
    )
    jobs = []
    for network in sorted(manifest.networks, key=lambda one: -_fp32_of(one, folder).bytes):
        path, grid = folder / _fp32_of(network, folder).file, network.gradcam_grid
        source = NetworkFile(network.name, path, grid, network.feature_size, manifest.input.shape)
        threads = max(1, usable_cores() // parallel)
        jobs.append(VariantJob(source, directory, options.precisions, low, high, threads))
    return jobs, parallel


def _run(
    folder: Path,
    manifest: Manifest,
    temporary: Path,
    fovs: VariantFovs,
    options: VariantOptions,
    report: Report,
) -> dict[str, VariantResult]:
    jobs, parallel = make_jobs(folder, manifest, temporary, fovs, options)
    report(Progress("variants", detail=f"{fovs.source}; {', '.join(options.precisions) or 'reference only'}"))
    made = run_jobs(run_job, jobs, parallel, _start, report)
    done = {job.name: result for job, result in zip(jobs, made, strict=True)}
    return {network.name: done[network.name] for network in manifest.networks}


def _start() -> None:
    """Start a worker, which needs no preparation."""


def _fp32_of(network: Network, folder: Path) -> Variant:
    variant = network.variant("fp32")
    if variant is None:
        raise EnsembleError(folder / MANIFEST_NAME, f"network {network.name} has no fp32 variant")
    return variant


def _move_in(
    folder: Path,
    temporary: Path,
    manifest: Manifest,
    results: Mapping[str, VariantResult],
    judged: Mapping[FilePrecision, Judgement],
    fovs: VariantFovs,
) -> Manifest:
    """Move accepted files into the folder, and return the manifest that lists them."""
    move = partial(_move, folder)
    networks = []
    for network in manifest.networks:
        variants = [_fp32_of(network, folder)]
        metrics = {k: v for k, v in network.metrics.items() if not k.endswith(_CORRECTED)}
        for precision, judgement in judged.items():
            parity = judgement.accepted.get(network.name)
            if parity is None:
                continue
            made = results[network.name].made[precision]
            name, sha256 = move(made.path, f"{network.name}.{precision}", "onnx")
            size = (folder / name).stat().st_size
            variants.append(Variant(precision=precision, file=name, bytes=size, sha256=sha256, parity=parity))
            for correction in get_args(Correction):
                metrics[f"{precision}_{correction}{_CORRECTED}"] = float(correction in made.corrections)
        rejected = tuple(
            one.rejected[network.name] for one in judged.values() if network.name in one.rejected
        )
        update = {"variants": tuple(variants), "metrics": metrics, "rejected_variants": rejected}
        networks.append(network.model_copy(update=update))
    reference = _write_reference(temporary, results, fovs, move)
    agreement = {precision: one.ensemble for precision, one in judged.items() if one.ensemble is not None}
    complete = reference.model_copy(update={"agreement": agreement})
    changed = manifest.model_copy(update={"networks": tuple(networks), "reference": complete})
    return Manifest.model_validate(changed.model_dump())  # model_copy does not validate


def _write_reference(
    temporary: Path,
    results: Mapping[str, VariantResult],
    fovs: VariantFovs,
    move: Callable[[Path, str, str], tuple[str, str]],
) -> Reference:
    chosen = fovs.reference()
    np.save(temporary / "reference.npy", fovs.measured[chosen])
    expected: dict[str, np.ndarray] = {}
    for name, result in results.items():
        expected[f"{name}.probability"] = result.fp32.probability[chosen]
        expected[f"{name}.gradcam"] = result.fp32.gradcam[chosen]
    np.savez(temporary / "reference.npz", allow_pickle=False, **expected)
    file, sha256 = move(temporary / "reference.npy", "reference", "npy")
    outputs, outputs_sha256 = move(temporary / "reference.npz", "reference", "npz")
    return Reference(
        file=file,
        sha256=sha256,
        expected=outputs,
        expected_sha256=outputs_sha256,
        fovs=len(chosen),
        source=fovs.source if len(chosen) == len(fovs.measured) else f"{len(chosen)} of {fovs.source}",
        labels=None if fovs.labels is None else tuple(fovs.labels[chosen].tolist()),
    )


def _move(folder: Path, source: Path, stem: str, ending: str) -> tuple[str, str]:
    """Move a file into the folder under a name with its hash; return name and hash."""
    sha256 = sha256_of(source)
    name = f"{stem}-{sha256[:12]}.{ending}"
    source.replace(folder / name)
    return name, sha256


def _remove_unlisted(folder: Path) -> None:
    """Remove files of this module that the manifest does not list: replaced, or left by a failed call."""
    manifest, _ = read_manifest(folder)
    listed = {variant.file for network in manifest.networks for variant in network.variants}
    if manifest.reference is not None:
        listed |= {manifest.reference.file, manifest.reference.expected}
    for path in folder.iterdir():
        if _OWN_FILE.fullmatch(path.name) and path.name not in listed:
            with suppress(OSError):  # in use, on Windows; the next call removes it
                path.unlink()
