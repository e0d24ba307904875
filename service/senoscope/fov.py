"""One field of view on its way through the service, from any source."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from senoscope_client.images.axes import FovSpec
from senoscope_client.models.result import Source


@dataclass(frozen=True, slots=True)
class RequestRef:
    """The request that a field of view belongs to."""

    id: str  # as in its log lines and its answer
    span: Any = None  # parent of the spans of its fields of view


@dataclass(frozen=True, slots=True)
class Fov:
    """A field of view that waits to be classified."""

    pixels: npt.NDArray[Any]
    """[C, H, W], any real dtype; raw detector units, channels in the order of ``spec``."""
    source: Source
    # What the pixels were arranged for. Only an ensemble of this specification may compute them: another one
    # may take the same channels in another order.
    spec: FovSpec = field(kw_only=True)
    arrived_s: float = field(default_factory=time.perf_counter)  # arrival in the service
    request: RequestRef | None = None  # None for frames of the stream
