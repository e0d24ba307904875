"""Writing of a trained network to a file that the service loads, after a comparison with Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from senoscope_training.workers.pool import report_progress
from senoscope_training.workers.progress import Progress

Float32 = npt.NDArray[np.float32]
_TOLERANCE = 1e-3  # of a probability: larger than float32 errors of any device, but not relevant for results


@dataclass(frozen=True, kw_only=True)
class NetworkJob:
    """The input of a worker process that writes one network into the folder of an ensemble."""

    name: str
    seed: int
    directory: Path
    low: Float32
    high: Float32
    threads: int

    @property
    def path(self) -> Path:
        """The network's file."""
        return self.directory / f"{self.name}.onnx"

    def report(self, stage: str, detail: str = "") -> None:
        """Report the progress of this network."""
        report_progress(Progress(stage, self.name, detail))

    def run(self, model: Path | bytes, outputs: list[str], fovs: Iterable[npt.NDArray[Any]]) -> list[Float32]:
        """Compute outputs of a network for FOVs [C, H, W]."""
        return parity.run_network(model, outputs, fovs, self.low, self.high, self.threads)


@dataclass(frozen=True)
class Published:
    """A network's entry in the manifest, and Keras' outputs for the FOVs that were compared."""

    network: Network
    expected: parity.Outputs
    report: parity.ParityReport


def publish(
    job: NetworkJob,
    exported: ExportedNetwork,
    backbone: Any,
    head: Head,
    sample: npt.NDArray[Any],
    *,
    weights: BackboneWeights,
    seed: int,
    metrics: dict[str, float],
    write: Callable[[onnx.ModelProto, Path], None] = save,
) -> Published:
    """Insert the head into an exported backbone, save it to the job's file, and compare it with Keras.

    The comparison is made for the raw counts [N, C, H, W] of ``sample``.

    Raises
    ------
    ParityError
        If the network deviates from Keras or from the gradient tape.
    """
    replace_head(exported.model, head)
    write(exported.model, job.path)
    expected = parity.keras_outputs(job.name, backbone, head, sample, job.low, job.high)
    report = parity.compare(parity.onnx_outputs(job.path, sample, job.low, job.high, job.threads), expected)
    report.require(job.name)
    network = Network(
        name=job.name,
        architecture=ARCHITECTURES[job.name].builder.replace(":", "."),
        opset=OPSET,
        gradcam_grid=exported.gradcam_grid,
        feature_size=exported.feature_size,
        backbone_weights=weights,
        seed=seed,
        metrics={**metrics, "parity_relative_logit": report.logit_relative},
        variants=(
            Variant(
                precision="fp32",
                file=job.path.name,
                bytes=job.path.stat().st_size,
                sha256=sha256_of(job.path),
                parity=Parity(max_abs_logit=report.logit_absolute, max_abs_gradcam=report.gradcam),
            ),
        ),
    )
    return Published(network, expected, report)


def write_test_vectors(
    directory: Path, fovs: npt.NDArray[Any], indices: Sequence[int], published: Mapping[str, Published]
) -> tuple[TestVector, ...]:
    """Save FOVs whose outputs are compared with Keras' whenever the ensemble is loaded.

    The indices are those of FOVs that were compared with Keras, in the same order.
    """
    vectors = []
    for number, index in enumerate(indices):
        path = directory / f"test_vector_{number}.npy"
        np.save(path, fovs[index])
        probabilities = {name: float(one.expected.probability[index]) for name, one in published.items()}
        expected = Expected(
            probability=float(np.mean(list(probabilities.values()))),
            networks=probabilities,
            gradcams={name: _rows(one.expected.gradcam[index]) for name, one in published.items()},
        )
        vectors.append(
            TestVector(file=path.name, sha256=sha256_of(path), expected=expected, tolerance=_TOLERANCE)
        )
    return tuple(vectors)


def _rows(gradcam: Float32) -> tuple[tuple[float, ...], ...]:
    """Convert a map for the manifest; six digits are more than the agreement between devices."""
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in gradcam)
