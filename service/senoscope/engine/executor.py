"""The interface between the ensemble and the hardware that runs its networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from senoscope.engine.precision import Precision

if TYPE_CHECKING:
    from senoscope.engine.cancellation import Cancellation

OUTPUT_NAMES = ("logit", "probability", "gradcam", "features")
INPUT_NAMES = ("image", "low", "high")

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NetworkFile:
    """A network to run: name, ONNX file, shapes of input and outputs, and the precision to compute it in.

    Within an ensemble in a lower precision, networks that failed the gate have ``fp32``, and must be computed
    in it: neither from another file, nor with inputs of convolutions rounded to TF32.
    """

    name: str
    path: Path
    gradcam_grid: tuple[int, int]  # rows and columns of its Grad-CAM map
    feature_size: int
    input_shape: tuple[int, int, int]  # channels, rows and columns
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Opening:
    """How to open networks on a device.

    Attributes
    ----------
    threads : int, optional
        CPU cores to use; default: all.
    precision : Precision
        In which to compute, one of the device's; networks with another one of their own keep it.
    digest : str
        SHA-256 of the manifest, for devices that keep compiled networks.
    cancellation : Cancellation, optional
        Interrupts opening and runs.
    """

    threads: int | None = None
    precision: Precision = "fp32"
    digest: str = ""
    cancellation: Cancellation | None = None


class Placement(TypedDict, total=False):
    """How networks are distributed on the hardware, as far as a device has such facts."""

    provider: str
    workers: int
    threads_per_worker: int
    schedule: Literal["sequential", "streams"]
    cuda_graphs: bool


class AgreementFacts(TypedDict):
    """An `Agreement` as plain values."""

    fovs: int
    max_abs_probability: float
    p99_abs_probability: float
    label_flips: int
    gradcam_iou: float
    auc_loss: float | None


class GateFacts(TypedDict):
    """The agreement with fp32 of each network and of the ensemble, measured on this machine."""

    networks: dict[str, AgreementFacts]
    ensemble: AgreementFacts


class RejectionFacts(TypedDict):
    """A precision that is not used for a network, or for the whole ensemble."""

    precision: Precision
    network: str | None
    reasons: list[str]
    found_at: Literal["export", "load"]


class EngineFacts(Placement):
    """The device of an ensemble, for logs and status; see `senoscope_client.models.status.EngineInfo`."""

    device: str
    reason: str
    precision: Precision
    fp32_networks: list[str]
    gate: GateFacts | None
    rejected: list[RejectionFacts]
    compute_ms: float
    batch_sizes: list[int]
    warnings: list[str]


class NetworkOutput(NamedTuple):
    """The output of one network for a batch, in the order of the graph's outputs."""

    logit: Float32  # [N]
    probability: Float32  # [N]
    gradcam: Float32  # [N, h, w]
    features: Float32  # [N, C]


class Executor(ABC):
    """Runs all networks of an ensemble on one batch.

    The ensemble creates it once, calls ``warm_up`` once, then ``run`` from one thread at a time, then
    ``close``. Everything that runs share (sessions, threads, buffers, captured graphs) is created in the
    first two.
    """

    device: str
    """Its name in `senoscope.engine.devices.DEVICES`."""
    cools_down: bool = False
    """Whether the device lowers its clocks when idle, which would delay the next frame."""

    @abstractmethod
    def warm_up(self, image: Float32, low: Float32, high: Float32) -> None:
        """Run until the next ``run`` is as fast as any later one."""

    @abstractmethod
    def run(self, image: Float32, low: Float32, high: Float32) -> list[NetworkOutput]:
        """Return the outputs of all networks, in their order, for a batch [N, C, H, W] of raw values."""

    def keep_warm(self) -> None:  # noqa: B027 - optional
        """Do a little work if the device cools down, much less than a run; only after ``warm_up``."""

    @abstractmethod
    def describe(self) -> Placement:
        """Return how the networks are distributed on the hardware, for logs and status."""

    @abstractmethod
    def close(self) -> None:
        """Interrupt a run in progress, and release threads and device memory."""
