"""The making of the variants of one network, in a worker process, and their outputs on the measured FOVs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx

from senoscope.engine.contract import check_outputs
from senoscope.engine.executor import OUTPUT_NAMES, NetworkFile, NetworkOutput
from senoscope.engine.precision import FilePrecision
from senoscope.engine.sessions import CPU, Provider, create_session
from senoscope_training.export.graph import save
from senoscope_training.export.parity import run_network
from senoscope_training.variants.activations import largest_activation
from senoscope_training.variants.bias_correction import correct_biases
from senoscope_training.variants.half import HALF_MAX, convert_to_half, copy_of, simulate_half
from senoscope_training.variants.head_correction import correct_head
from senoscope_training.variants.int8 import convert_to_int8
from senoscope_training.workers.pool import report_progress
from senoscope_training.workers.progress import Progress

Float32 = npt.NDArray[np.float32]
Correction = Literal["bias", "head"]
_TRIAL_FOVS = 4
_TRIAL_TOLERANCE = 0.1  # of a probability: the CPU does not round intermediate values of fp16


@dataclass(frozen=True)
class VariantJob:
    """The input of a worker process.

    Attributes
    ----------
    network : NetworkFile
        The fp32 file.
    directory : Path
        Folder with ``measured.npy`` and ``calibration.npy``, into which the variants are written.
    """

    network: NetworkFile
    directory: Path
    precisions: tuple[FilePrecision, ...]
    low: Float32
    high: Float32
    threads: int

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.network.name

    def run(self, model: Path | onnx.ModelProto, fovs: npt.NDArray[Any]) -> NetworkOutput:
        """Compute the outputs for FOVs [N, C, H, W]."""
        source = model if isinstance(model, Path) else model.SerializeToString()
        return NetworkOutput(
            *run_network(source, list(OUTPUT_NAMES), fovs, self.low, self.high, self.threads)
        )

    def report(self, stage: str, detail: str = "") -> None:
        """Report a stage."""
        report_progress(Progress(stage, self.name, detail))


@dataclass(frozen=True)
class MadeVariant:
    """A variant, not judged yet.

    Attributes
    ----------
    path : Path
        Its file, in the job's folder.
    outputs : NetworkOutput
        For the measured FOVs.
    corrections : tuple of {"bias", "head"}
        Those that are used: of convolutions' biases (`senoscope_training.variants.bias_correction`), and of
        the head (`senoscope_training.variants.head_correction`).
    """

    path: Path
    outputs: NetworkOutput
    corrections: tuple[Correction, ...]


@dataclass(frozen=True)
class VariantResult:
    """The result of a worker process: for each precision a variant, or why there is none."""

    fp32: NetworkOutput
    made: dict[FilePrecision, MadeVariant] = field(default_factory=dict)
    problems: dict[FilePrecision, str] = field(default_factory=dict)


def run_job(job: VariantJob) -> VariantResult:
    """Make the variants of one network."""
    began = time.monotonic()
    job.report("fp32")
    measured = np.load(job.directory / "measured.npy", mmap_mode="r")
    result = VariantResult(job.run(job.network.path, measured))
    for precision in job.precisions:
        job.report(precision)
        try:
            result.made[precision] = _make(job, precision, measured)
        except Exception as error:  # of ONNX, ONNX Runtime and NNCF; the network then stays in fp32
            result.problems[precision] = " ".join(f"it cannot be made or run: {error}".split())[:500]
    job.report("done", f"{time.monotonic() - began:.0f} s")
    return result


def _make(job: VariantJob, precision: FilePrecision, measured: npt.NDArray[Any]) -> MadeVariant:
    """Convert a network with the corrections that help on the calibration FOVs, and try the file.

    The measured FOVs decide nothing, so that their figures are those of FOVs that were not seen before. Of
    fp16, the outputs are those of a simulation (`senoscope_training.variants.half.simulate_half`).
    """
    model = onnx.load(job.network.path)
    calibration = np.load(job.directory / "calibration.npy", mmap_mode="r")
    candidates: dict[tuple[Correction, ...], onnx.ModelProto]
    if precision == "fp16":
        peak = largest_activation(model, calibration, job.low, job.high, job.threads)
        if not peak <= HALF_MAX:
            raise OverflowError(f"an activation of {peak:.3g} exceeds the range of fp16")
        corrected = correct_biases(model, calibration, job.low, job.high, job.threads)
        candidates = {(): convert_to_half(model), ("bias",): convert_to_half(corrected)}
    else:
        candidates = {(): convert_to_int8(model, calibration, job.low, job.high)}
    runnable = simulate_half if precision == "fp16" else copy_of
    expected = job.run(model, calibration)
    deviations: dict[tuple[Correction, ...], float] = {}
    for corrections, candidate in list(candidates.items()):
        found = job.run(runnable(candidate), calibration)
        deviations[corrections] = _deviation(found, expected)
        with_head = correct_head(candidate, expected.features, found.features)
        if with_head is not None:
            both: tuple[Correction, ...] = (*corrections, "head")
            candidates[both] = with_head
            deviations[both] = _deviation(job.run(runnable(with_head), calibration), expected)
    best = min(deviations, key=deviations.__getitem__)
    outputs = job.run(runnable(candidates[best]), measured)
    path = job.directory / f"{job.name}.{precision}.onnx"
    save(candidates[best], path)
    _try(job, path, precision, measured[:_TRIAL_FOVS], outputs)
    return MadeVariant(path, outputs, best)


def _deviation(found: NetworkOutput, fp32: NetworkOutput) -> float:
    """Return the root mean square of the deviations of the probability."""
    apart = found.probability.astype(np.float64) - fp32.probability
    return float(np.sqrt((apart**2).mean()))


def _try(
    job: VariantJob, path: Path, precision: FilePrecision, fovs: npt.NDArray[Any], expected: NetworkOutput
) -> None:
    """Run a file as the engine does: its inputs and outputs are checked."""
    network = NetworkFile(
        job.name, path, job.network.gradcam_grid, job.network.feature_size, job.network.input_shape, precision
    )
    session = create_session(network, Provider(CPU), threads=job.threads)
    feeds = {"image": np.asarray(fovs, np.float32), "low": job.low, "high": job.high}
    found = NetworkOutput(*session.run(OUTPUT_NAMES, feeds))
    check_outputs([found], [network], len(fovs))
    apart = float(np.abs(found.probability - expected.probability[: len(fovs)]).max())
    if not apart <= _TRIAL_TOLERANCE:
        raise ValueError(f"the file gives other probabilities than measured, by up to {apart:.3g}")
