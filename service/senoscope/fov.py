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
    """The request that a field of view belongs to.

    Attributes
    ----------
    id : str
        As in its log lines and its answer.
    span : object or None
        Parent of the spans of its fields of view.
    """

    id: str
    span: Any = None


@dataclass(frozen=True, slots=True)
class Fov:
    """A field of view that waits to be classified.

    Attributes
    ----------
    pixels : array [C, H, W], any real dtype
        Raw detector units, channels in the order of ``spec``.
    source : Source
        Of the pixels.
    spec : FovSpec
        What the pixels were arranged for. Only an ensemble of this specification may compute them: another
        one may take the same channels in another order.
    arrived_s : float
        Time of arrival in the service, by ``time.perf_counter``.
    request : RequestRef or None
        None for frames of the stream.
    """

    pixels: npt.NDArray[Any]
    source: Source
    spec: FovSpec = field(kw_only=True)
    arrived_s: float = field(default_factory=time.perf_counter)
    request: RequestRef | None = None
