"""The passport of a machine: what ``senoscope bench`` measured, where, and with which versions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from senoscope.bench.machine import Machine

PASSPORT_NAME: Final = "bench.json"
HISTOGRAM_NAME: Final = "bench.svg"
_BINS_PER_DECADE: Final = 20


class PassportError(Exception):
    """A passport cannot be read; the message names the file and what to do."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Spread(_Frozen):
    """Percentiles of measured times, in milliseconds: measured values, none between two of them."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> Self | None:
        """Return the percentiles of some values; None without any."""
        if not values_ms:
            return None
        p50, p95, p99 = np.percentile(values_ms, [50, 95, 99], method="higher").round(3).tolist()
        return cls(count=len(values_ms), p50=p50, p95=p95, p99=p99, max=round(max(values_ms), 3))


class Histogram(_Frozen):
    """How many times fell between two edges, in milliseconds; the widths of the bins grow with the times."""

    edges_ms: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> Self | None:
        """Return the histogram of positive values; None without any."""
        if not values_ms:
            return None
        bins = np.floor(np.log10(values_ms) * _BINS_PER_DECADE).astype(int)
        first, last = int(bins.min()), int(bins.max())
        edges = 10 ** (np.arange(first, last + 2) / _BINS_PER_DECADE)
        return cls(
            edges_ms=tuple(round(float(edge), 6) for edge in edges),
            counts=tuple(np.bincount(bins - first).tolist()),
        )


class EngineTimes(_Frozen):
    """Times of the engine alone, for batches of one size."""

    batch_size: int
    latency_ms: Spread
    fovs_per_second: float


class PostedStacks(_Frozen):
    """Stacks that were posted during the stream, one after the other."""

    fovs_per_stack: int
    succeeded: int
    failed: int
    fovs_per_second: float
    p50_ms: float | None
    max_ms: float | None


class StreamTimes(_Frozen):
    """Times of frames through the real service, from the call of ``publish`` to the result at a WebSocket.

    Attributes
    ----------
    rate_hz : float
        At which the simulated microscope was to publish.
    sent_hz : float
        At which it did.
    sent, received : int
        Frames sent and results received.
    late : int
        Results that missed the service's deadline; 0 without one.
    dropped, failed : int
        Frames that were dropped by the service, and that it could not compute.
    latency_ms, overhead_ms : Spread or None
        Wire to wire; and of that without the computation by the engine.
    histogram : Histogram or None
        Of ``latency_ms``.
    stacks : PostedStacks or None
        What was posted during the stream.
    """

    rate_hz: float
    sent_hz: float
    sent: int
    received: int
    late: int
    dropped: int
    failed: int
    latency_ms: Spread | None
    overhead_ms: Spread | None
    histogram: Histogram | None
    stacks: PostedStacks | None = None

    @property
    def title(self) -> str:
        """What was measured, for a heading."""
        beside = f", with posted stacks of {self.stacks.fovs_per_stack}" if self.stacks else ""
        return f"{self.rate_hz:.3g} FOVs per second{beside}"


class Trial(_Frozen):
    """One step of the search for the highest rate.

    Attributes
    ----------
    problem : str or None
        Why the rate is too high, or None.
    """

    rate_hz: float
    frames: int
    p99_ms: float | None
    problem: str | None


class EnsembleRef(_Frozen):
    """The measured ensemble; ``digest`` is the SHA-256 of its ``ensemble.json``."""

    name: str
    version: str
    digest: str


class Passport(_Frozen):
    """What was measured on a machine.

    Attributes
    ----------
    device, precision : str
        With which the service computed.
    engine : dict
        The engine's description of itself, with the figures of the gate.
    deadline_ms : float or None
        Of the service.
    deadline_kept : bool or None
        Whether the stream alone kept it at the 99th percentile; None without one.
    start_s : float
        From the start of the service's process until it was ready.
    search : tuple of Trial
        Empty if the rate was given.
    """

    kind: Literal["senoscope bench"] = "senoscope bench"
    format: Literal[1] = 1
    made_at: datetime
    quick: bool
    machine: Machine
    ensemble: EnsembleRef
    device: str
    precision: str
    engine: dict[str, Any]
    deadline_ms: float | None
    deadline_kept: bool | None
    start_s: float
    batches: tuple[EngineTimes, ...]
    search: tuple[Trial, ...]
    streams: tuple[StreamTimes, ...] = Field(min_length=1)

    def write(self, folder: Path) -> Path:
        """Write the passport to a folder, and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / PASSPORT_NAME
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Passport:
        """Read a passport.

        Raises
        ------
        FileNotFoundError
            If there is none.
        PassportError
            If the file cannot be read, or is no passport.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else _first_fault(error)
            raise PassportError(
                f"{path} is not a passport of this version ({reason}); run `senoscope bench` again"
            ) from error


def default_folder() -> Path:
    """Return the folder of the last passport: the user's data folder."""
    return platformdirs.user_data_path("senoscope", appauthor=False)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    return f"{where}: {fault['msg']}" if where else fault["msg"]
