"""The result of one field of view: the same record over REST, WebSocket, ZeroMQ and in the run log."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from senoscope_client.models.base import OpenModel
from senoscope_client.models.choices import CamMode, SourceKind
from senoscope_client.models.coordinates import Index, Position

__all__ = [
    "CamMode",
    "Flag",
    "Gradcam",
    "ModelRef",
    "Normalization",
    "Result",
    "Source",
    "SourceKind",
    "Timing",
    "Uncertainty",
]


class Source(OpenModel):
    """Where a field of view came from.

    Attributes
    ----------
    kind : {"stream", "upload", "file"}
        A frame of the acquisition PC's stream, a posted stack, or a file classified without a server.
    instrument, series_id, series_uid, frame
        As in the frame's header; of a stack, ``frame`` is the place of the FOV in it, from 0.
    index, position_um, pixel_size_um
        As in the frame's header.
    file : str or None
        Name (not path) of the posted or classified file.
    acquired_at : datetime or None
        The frame's time stamp, UTC, by the acquisition PC's clock.
    """

    kind: SourceKind
    instrument: str | None = None
    series_id: str | None = None
    series_uid: UUID | None = None
    frame: int | None = None
    index: Index | None = None
    position_um: Position | None = None
    pixel_size_um: float | None = None
    file: str | None = None
    acquired_at: datetime | None = None


class Uncertainty(OpenModel):
    """How sure the ensemble is, from the spread of its networks.

    Attributes
    ----------
    entropy : float
        Entropy of the ensemble's probability, in bits, 0 (sure) to 1.
    mutual_information : float
        The part of ``entropy`` that comes from disagreement between the networks, in bits.
    agreement : float
        Fraction of the networks whose own label is the ensemble's.
    """

    entropy: float
    mutual_information: float
    agreement: float


class Flag(OpenModel):
    """Something that a reader of the result should know.

    Attributes
    ----------
    code : str
        Stable name, such as ``saturated`` or ``not_for_science``.
    message : str
        The same in words.
    channel : str or None
        The channel it concerns.
    value : float or None
        For ``saturated``: the fraction of the channel's pixels above the intensity range.
    """

    code: str
    message: str
    channel: str | None = None
    value: float | None = None


class Gradcam(OpenModel):
    """The Grad-CAM maps of a result.

    Attributes
    ----------
    href : str or None
        Where the service shows the map as PNG, for as long as its run log holds the result; over a channel
        only for as long as it remembers the pixels.
    grids : dict of str to list of list of float, or None
        Each network's own map, rows by columns, non-negative, not normalised (``cam=grid``).
    png : str or None
        The ensemble map as PNG, base64 (``cam=png``).
    """

    href: str | None = None
    grids: dict[str, list[list[float]]] | None = None
    png: str | None = None


class Normalization(OpenModel):
    """The intensity range that a result was made with, per channel, in raw detector units.

    Attributes
    ----------
    source : {"model", "session"}
        Fitted on the training data, or calibrated in the lab.
    low, high : list of float
        Mapped to 0 and 255; one value per channel.
    """

    source: Literal["model", "session"]
    low: list[float]
    high: list[float]


class ModelRef(OpenModel):
    """The ensemble that made a result; ``digest`` is the SHA-256 of its ``ensemble.json``."""

    name: str
    version: str
    digest: str


class Timing(OpenModel):
    """Where the time went, in milliseconds.

    Attributes
    ----------
    queue : float
        From arrival in the service to the start of its computation.
    compute : float
        In the engine; fields of view computed in one batch share the batch's time.
    total : float
        From arrival in the service until the result was made, to be logged and told.
    """

    queue: float
    compute: float
    total: float


class Result(OpenModel):
    """Senescent or control, how probable, and why.

    Attributes
    ----------
    id : UUID
        Version 7, so that ids sort by time.
    label : str
        One of the ensemble's classes.
    probability : float
        Of the class senescent: the plain mean over the networks.
    networks : dict of str to float
        Each network's own probability.
    deadline_met : bool
        Whether ``timing_ms.total`` kept the service's deadline.
    """

    id: UUID
    source: Source
    label: str
    probability: float
    networks: dict[str, float]
    uncertainty: Uncertainty
    flags: list[Flag] = Field(default_factory=list)
    gradcam: Gradcam = Field(default_factory=Gradcam)
    normalization: Normalization
    model: ModelRef
    timing_ms: Timing
    deadline_met: bool
