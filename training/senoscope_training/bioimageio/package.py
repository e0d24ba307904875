"""Writing of bioimage.io packages: the merged graph is compared with the engine, described and zipped."""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from senoscope.engine import Ensemble
from senoscope.engine.manifest import ChannelRange, read_manifest
from senoscope.engine.sessions import usable_cores
from senoscope.results.pictures import overlay_png, scale_channel
from senoscope_training.bioimageio import texts
from senoscope_training.bioimageio.merged import GRADCAM, IMAGE, NETWORKS, PROBABILITY, merge
from senoscope_training.export.graph import save
from senoscope_training.export.parity import open_session
from senoscope_training.workers.progress import Progress, Report, silent

Tensors = dict[str, npt.NDArray[np.float32]]
TOLERANCES = {PROBABILITY: 1e-5, NETWORKS: 1e-5, GRADCAM: 1e-4}


class PackageError(Exception):
    """A package cannot be written; the message contains the reason and a remedy."""


def check_target(target: Path, force: bool) -> None:
    """Check that a package can be written, before the export, which takes minutes.

    Raises
    ------
    PackageError
        If bioimageio.spec is not installed, or if the path is invalid or exists.
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
        raise PackageError(f"{target}: the name of a package must end with .zip")
    if target.is_dir() or (target.exists() and not force):
        raise PackageError(f"{target} already exists; choose another name, or pass --force to replace a file")
    if not target.parent.is_dir():
        raise PackageError(f"{target.parent} is not a folder; create it, or choose another name")


def write_package(directory: Path, target: Path, *, force: bool = False, report: Report = silent) -> Path:
    """Write an ensemble as a bioimage.io package, which can be validated without a network connection.

    Raises
    ------
    PackageError
        If the file cannot be written, or the merged network deviates from the engine.
    EnsembleError
        If the ensemble cannot be loaded or merged.
    """
    from bioimageio.spec import ValidationContext, save_bioimageio_package

    from senoscope_training.bioimageio.description import Files, describe

    check_target(target, force)
    report(Progress("loading", detail=f"{directory}, with verification of its files and test vectors"))
    expected = engine_outputs(directory)
    manifest, digest = read_manifest(directory)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        folder = Path(temporary)
        weights = folder / "ensemble.onnx"
        report(Progress("merging", detail=f"{len(manifest.networks)} networks into one graph"))
        save(merge(directory, manifest), weights)
        report(Progress("comparing", detail="the graph with the engine, on the test vectors"))
        computed = open_session(weights, usable_cores()).run(list(TOLERANCES), {IMAGE: expected[IMAGE]})
        outputs = {IMAGE: expected[IMAGE], **dict(zip(TOLERANCES, computed, strict=True))}
        deviation = _compare(outputs, expected)
        size = f"{weights.stat().st_size / 1e6:.0f} MB"
        report(Progress("packing", detail=f"{size}; graph deviates by {deviation}"))
        shown = int(outputs[PROBABILITY].argmax())
        cover, documentation = folder / "cover.png", folder / "README.md"
        cover.write_bytes(
            _cover_png(expected[IMAGE][shown, 0], outputs[GRADCAM][shown], manifest.normalization.channels[0])
        )
        documentation.write_text(texts.readme(manifest, digest), encoding="utf-8", newline="\n")
        tensors = {name: folder / f"test_{name}.npy" for name in outputs}
        for name, path in tensors.items():
            np.save(path, outputs[name])
        files = Files(weights, documentation, cover, tensors)
        made = folder / "package.zip"
        with ValidationContext(log_warnings=False), warnings.catch_warnings():
            # bioimageio.spec warns about its own files, which it searches before it has their folder.
            warnings.simplefilter("ignore", UserWarning)
            try:
                # Not compressed: that takes half a minute, and weights become only a few per cent smaller.
                save_bioimageio_package(
                    describe(manifest, digest, files), output_path=made, compression=zipfile.ZIP_STORED
                )
            except ValueError as error:
                raise PackageError(f"{directory} is not valid in bioimage.io's format: {error}") from error
        made.replace(target)
    report(Progress("done", detail=f"{target}: test it with bioimageio test {target}"))
    return target


def engine_outputs(directory: Path) -> Tensors:
    """Compute the engine's outputs for the ensemble's test vectors, named like those of the merged graph."""
    with Ensemble.load(directory, device="cpu") as ensemble:
        vectors = [np.load(directory / vector.file) for vector in ensemble.manifest.test_vectors]
        predictions = ensemble.predict(np.stack(vectors).astype(np.float32))
    return {
        IMAGE: np.stack(vectors).astype(np.float32),
        PROBABILITY: np.array([[p.probability] for p in predictions], np.float32),
        NETWORKS: np.stack([p.probabilities for p in predictions]),
        GRADCAM: np.stack([p.map() for p in predictions]),
    }


def _compare(outputs: Tensors, expected: Tensors) -> str:
    """Describe the largest deviation of each output; raise if one is too large."""
    found = []
    for name, tolerance in TOLERANCES.items():
        deviation = float(np.abs(outputs[name] - expected[name]).max())
        if not deviation <= tolerance:
            raise PackageError(
                f"the merged graph's {name} deviates from the engine by {deviation:.1e}, more than "
                f"{tolerance:.0e}: please report this, with the ensemble's ensemble.json"
            )
        found.append(f"{deviation:.0e} ({name})")
    return ", ".join(found)


def _cover_png(pixels: npt.NDArray[Any], gradcam: npt.NDArray[np.float32], bounds: ChannelRange) -> bytes:
    """Draw the two images as squares side by side, because bioimage.io requires an aspect ratio of 2:1.

    The pixels [H, W] are raw counts of the first channel, and the map [H, W] is that of the ensemble, 0..1.
    """
    grey = scale_channel(pixels, bounds.low, bounds.high)
    empty = np.zeros_like(gradcam)
    images = [
        cv2.imdecode(np.frombuffer(overlay_png(overlay, grey), np.uint8), cv2.IMREAD_COLOR)
        for overlay in (empty, gradcam)
    ]
    side = min(pixels.shape)
    top, left = ((extent - side) // 2 for extent in pixels.shape)
    squares = [image[top : top + side, left : left + side] for image in images if image is not None]
    done, buffer = cv2.imencode(".png", np.hstack(squares))
    if not done:
        raise RuntimeError("OpenCV could not encode the cover")
    return buffer.tobytes()
