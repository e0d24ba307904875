"""Packing an ensemble for bioimage.io: merged, compared with the engine, described, zipped."""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from senoscope.engine import Ensemble
from senoscope.engine.manifest import read_manifest
from senoscope.engine.sessions import CPU, usable_cores
from senoscope_training.bioimageio import words
from senoscope_training.bioimageio.cover import cover_png
from senoscope_training.bioimageio.merged import GRADCAM, IMAGE, NETWORKS, PROBABILITY, merge
from senoscope_training.export.graph import save
from senoscope_training.workers.progress import Progress, Report, silent

Tensors = dict[str, npt.NDArray[np.float32]]
TOLERANCES = {PROBABILITY: 1e-5, NETWORKS: 1e-5, GRADCAM: 1e-4}
_ERROR = 3  # of ONNX Runtime's severities; it warns of every initializer that is not used


class PackageError(Exception):
    """A package cannot be written; the message says why and what to do."""


def check_target(target: Path, force: bool) -> None:
    """See that a package can be written, before anything that takes long.

    Raises
    ------
    PackageError
        If what it needs is not installed, or the file cannot be that one.
    """
    try:
        import bioimageio.spec  # noqa: F401
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("bioimageio"):
            raise
        raise PackageError(
            'bioimageio.spec is not installed; --bioimageio needs `pip install "senoscope[bioimageio]"`, '
            'in a clone `pip install -c constraints.txt -e ".[bioimageio]"`'
        ) from None
    if target.suffix != ".zip":
        raise PackageError(f"{target}: the name of a package ends with .zip")
    if target.is_dir() or (target.exists() and not force):
        raise PackageError(f"{target} exists; --force replaces a file, another name leaves it alone")
    if not target.parent.is_dir():
        raise PackageError(f"{target.parent}: no such folder; make it, or give another name")


def write_package(directory: Path, target: Path, *, force: bool = False, report: Report = silent) -> Path:
    """Write an ensemble as a package of bioimage.io; nothing in it needs to be looked up in the network.

    Parameters
    ----------
    directory : Path
        The folder that holds ``ensemble.json``.
    target : Path
        The zip file.

    Raises
    ------
    PackageError
        If the file cannot be written, or the merged network deviates from the engine.
    EnsembleError
        If the ensemble cannot be loaded or merged.
    """
    from bioimageio.spec import ValidationContext, save_bioimageio_package

    from senoscope_training.bioimageio.description import Files, describe, tensor_files

    check_target(target, force)
    report(Progress("loading", detail=f"{directory}, its files and test vectors verified"))
    expected = engine_answers(directory)
    manifest, digest = read_manifest(directory)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        folder = Path(temporary)
        weights = folder / "ensemble.onnx"
        report(Progress("merging", detail=f"{len(manifest.networks)} networks into one graph"))
        save(merge(directory, manifest), weights)
        report(Progress("comparing", detail="the graph with the engine, on the test vectors"))
        answers = _graph_answers(weights, expected[IMAGE])
        deviation = _compare(answers, expected)
        report(
            Progress(
                "packing", detail=f"{weights.stat().st_size / 1e6:.0f} MB; graph deviates by {deviation}"
            )
        )
        brightest = int(answers[PROBABILITY].argmax())
        cover, documentation = folder / "cover.png", folder / "README.md"
        cover.write_bytes(
            cover_png(
                expected[IMAGE][brightest, 0], answers[GRADCAM][brightest], manifest.normalization.channels[0]
            )
        )
        documentation.write_text(words.readme(manifest, digest), encoding="utf-8", newline="\n")
        files = Files(weights, documentation, cover, tensor_files(folder, answers))
        made = folder / "package.zip"
        with ValidationContext(log_warnings=False), warnings.catch_warnings():
            # It warns of its own files, which it looks for before it knows their folder.
            warnings.simplefilter("ignore", UserWarning)
            try:
                # Weights hardly shrink: deflating them takes half a minute for a few per cent.
                save_bioimageio_package(
                    describe(manifest, digest, files), output_path=made, compression=zipfile.ZIP_STORED
                )
            except ValueError as error:
                raise PackageError(f"bioimage.io's format does not take {directory}: {error}") from error
        made.replace(target)
    report(Progress("done", detail=f"{target}: test it with bioimageio test {target}"))
    return target


def engine_answers(directory: Path) -> Tensors:
    """What the engine answers to the ensemble's test vectors, by the names of the merged graph."""
    with Ensemble.load(directory, device="cpu") as ensemble:
        vectors = [np.load(directory / vector.file) for vector in ensemble.manifest.test_vectors]
        predictions = ensemble.predict(np.stack(vectors).astype(np.float32))
    return {
        IMAGE: np.stack(vectors).astype(np.float32),
        PROBABILITY: np.array([[p.probability] for p in predictions], np.float32),
        NETWORKS: np.stack([p.probabilities for p in predictions]),
        GRADCAM: np.stack([p.map() for p in predictions]),
    }


def _graph_answers(path: Path, image: npt.NDArray[np.float32]) -> Tensors:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = usable_cores()
    settings.log_severity_level = _ERROR
    session = ort.InferenceSession(str(path), settings, providers=[CPU])
    names = [PROBABILITY, NETWORKS, GRADCAM]
    return {IMAGE: image, **dict(zip(names, session.run(names, {IMAGE: image}), strict=True))}


def _compare(answers: Tensors, expected: Tensors) -> str:
    """Largest deviation of each output, in words."""
    found = []
    for name, tolerance in TOLERANCES.items():
        deviation = float(np.abs(answers[name] - expected[name]).max())
        if not deviation <= tolerance:
            raise PackageError(
                f"the merged graph's {name} deviates from the engine by {deviation:.1e}, more than "
                f"{tolerance:.0e}: please report it, with the ensemble's ensemble.json"
            )
        found.append(f"{deviation:.0e} ({name})")
    return ", ".join(found)
