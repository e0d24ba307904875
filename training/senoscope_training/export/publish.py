"""Writing of a trained network to a file that the service loads, after a comparison with Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from senoscope.engine.manifest import (
    BackboneWeights,
    Expected,
    Network,
    Parity,
    TestVector,
    Variant,
    sha256_of,
)
from senoscope_training.export import parity
from senoscope_training.export.convert import OPSET
from senoscope_training.export.graph import replace_head, save
from senoscope_training.export.network import ExportedNetwork
from senoscope_training.networks.architectures import ARCHITECTURES
from senoscope_training.networks.head import Head

Float32 = npt.NDArray[np.float32]
_TOLERANCE = 1e-3  # of a probability: larger than float32 errors of any device, but not relevant for results


@dataclass(frozen=True)
class KnownOutput:
    """The output of Keras and a gradient tape for a FOV.

    Attributes
    ----------
    probability : float
    gradcam : float32 array [h, w]
        On the network's grid, not normalised.
    """

    probability: float
    gradcam: Float32


@dataclass(frozen=True)
class Published:
    """A network's entry in the manifest, and Keras' outputs for the test vectors.

    Attributes
    ----------
    network : Network
    expected : list of KnownOutput
        Keras' outputs for the FOVs that were compared.
    report : ParityReport
    """

    network: Network
    expected: list[KnownOutput]
    report: parity.ParityReport


def publish(
    name: str,
    exported: ExportedNetwork,
    backbone: Any,
    head: Head,
    directory: Path,
    sample: npt.NDArray[Any],
    low: Float32,
    high: Float32,
    *,
    weights: BackboneWeights,
    seed: int,
    metrics: dict[str, float],
    threads: int,
    write: Callable[[onnx.ModelProto, Path], None] = save,
) -> Published:
    """Insert the head into an exported backbone, save it as ``<name>.onnx``, and compare it with Keras.

    Parameters
    ----------
    sample : array [N, C, H, W]
        Raw counts of FOVs for the comparison.
    write : callable
        Writes the network's file.

    Raises
    ------
    ParityError
        If the network deviates from Keras or from the gradient tape.
    """
    replace_head(exported.model, head)
    path = directory / f"{name}.onnx"
    write(exported.model, path)
    reference = parity.keras_outputs(name, backbone, head, sample, low, high)
    report = parity.compare(parity.onnx_outputs(path, sample, low, high, threads), reference)
    report.require(name)
    network = Network(
        name=name,
        architecture=ARCHITECTURES[name].dotted,
        opset=OPSET,
        gradcam_grid=exported.gradcam_grid,
        feature_size=exported.feature_size,
        backbone_weights=weights,
        seed=seed,
        metrics={**metrics, "parity_relative_logit": report.logit_relative},
        variants=(
            Variant(
                precision="fp32",
                file=path.name,
                bytes=path.stat().st_size,
                sha256=sha256_of(path),
                parity=Parity(max_abs_logit=report.logit_absolute, max_abs_gradcam=report.gradcam),
            ),
        ),
    )
    pairs = zip(reference.probability, reference.gradcam, strict=True)
    return Published(network, [KnownOutput(float(p), gradcam) for p, gradcam in pairs], report)


def write_test_vector(
    directory: Path, number: int, pixels: npt.NDArray[Any], expected: dict[str, KnownOutput]
) -> TestVector:
    """Save a FOV [C, H, W] whose outputs are compared with Keras' whenever the ensemble is loaded."""
    probabilities = {name: output.probability for name, output in expected.items()}
    path = directory / f"test_vector_{number}.npy"
    np.save(path, pixels)
    return TestVector(
        file=path.name,
        sha256=sha256_of(path),
        expected=Expected(
            probability=float(np.mean(list(probabilities.values()))),
            networks=probabilities,
            gradcams={name: _rows(output.gradcam) for name, output in expected.items()},
        ),
        tolerance=_TOLERANCE,
    )


def _rows(gradcam: Float32) -> tuple[tuple[float, ...], ...]:
    """Convert a map for the manifest; six digits are more than the agreement between devices."""
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in gradcam)


def move_into_place(build: Path, target: Path, old: Path, force: bool) -> None:
    """Rename a finished ensemble to ``target``; with ``force``, rename an existing one to ``old``.

    Raises
    ------
    FileExistsError
        If ``target`` exists, or cannot be created.
    """
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
