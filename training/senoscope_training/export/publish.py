"""A trained network as a file that the service loads: exported, compared with Keras, described."""

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
_TOLERANCE = 1e-3  # of a probability: above what float32 does on any device, far below what would matter


@dataclass(frozen=True)
class KnownAnswer:
    """What Keras and a gradient tape say of a FOV.

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
    """A network's entry in the manifest, and what Keras says of the test vectors.

    Attributes
    ----------
    network : Network
    expected : list of KnownAnswer
        For the FOVs that were compared.
    report : ParityReport
    """

    network: Network
    expected: list[KnownAnswer]
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
    """Put the head into an exported backbone, save it as ``<name>.onnx``, and compare it with Keras.

    Parameters
    ----------
    sample : array [N, C, H, W]
        FOVs to compare on, raw counts.
    write : callable
        Writes the network's file.

    Raises
    ------
    ParityError
        If it deviates from Keras or from a gradient tape.
    """
    replace_head(exported.model, head)
    path = directory / f"{name}.onnx"
    write(exported.model, path)
    reference = parity.keras_answers(name, backbone, head, sample, low, high)
    report = parity.compare(parity.onnx_answers(path, sample, low, high, threads), reference)
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
    return Published(network, [KnownAnswer(float(p), gradcam) for p, gradcam in pairs], report)


def write_test_vector(
    directory: Path, number: int, pixels: npt.NDArray[Any], expected: dict[str, KnownAnswer]
) -> TestVector:
    """Save a FOV [C, H, W] that every loading of the ensemble must answer as Keras did, maps included."""
    probabilities = {name: answer.probability for name, answer in expected.items()}
    path = directory / f"test_vector_{number}.npy"
    np.save(path, pixels)
    return TestVector(
        file=path.name,
        sha256=sha256_of(path),
        expected=Expected(
            probability=float(np.mean(list(probabilities.values()))),
            networks=probabilities,
            gradcams={name: _rows(answer.gradcam) for name, answer in expected.items()},
        ),
        tolerance=_TOLERANCE,
    )


def _rows(gradcam: Float32) -> tuple[tuple[float, ...], ...]:
    """A map as the manifest has it: six digits are more than what devices agree on."""
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in gradcam)


def put_in_place(build: Path, target: Path, old: Path, force: bool) -> None:
    """Move a finished ensemble to its name; the one it replaces goes to ``old``.

    Raises
    ------
    FileExistsError
        If there is one already.
    """
    if force and target.exists():
        target.replace(old)
    try:
        build.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.replace(target)
        raise FileExistsError(
            f"{target} cannot be put in place: {error}; did another run make it meanwhile?"
        ) from error
