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
    """The origin of a field of view.

    Attributes
    ----------
    kind : {"stream", "upload", "file"}
        A frame of the acquisition PC's stream, a posted stack, or a file: of a watched folder, or classified
        without a server.
    instrument, series_id, series_uid, frame
        As in the frame's header; in a stack or file, ``frame`` is the number of the FOV, from 0.
    index, position_um, pixel_size_um
        As in the frame's header.
    file : str or None
        Name (not path) of the posted or classified file. Each file of a watched folder is a series, whose
        ``series_id`` is its path in the folder.
    acquired_at : datetime or None
        The frame's time stamp in UTC, from the acquisition PC's clock.
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
    """Uncertainty of the ensemble, from the spread of its networks.

    Attributes
    ----------
    entropy : float
        Entropy of the ensemble's probability, in bits, 0 (certain) to 1.
    mutual_information : float
        The part of ``entropy`` that is caused by disagreement between the networks, in bits.
    agreement : float
        Fraction of the networks whose label is that of the ensemble.
    """

    entropy: float
    mutual_information: float
    agreement: float


class Flag(OpenModel):
    """A warning about a result.

    Attributes
    ----------
    code : str
        Stable name, such as ``saturated`` or ``not_for_science``.
    message : str
        Description of the warning.
    channel : str or None
        The channel that the warning is about.
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
        Path of the map as PNG on the service, valid while its run log holds the result; drawn over a channel
        only while the service holds the pixels.
    grids : dict of str to list of list of float, or None
        The map of each network, rows by columns, non-negative, not normalised (``cam=grid``).
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
    """The ensemble that computed a result.

    Attributes
    ----------
    digest : str
        SHA-256 of its ``ensemble.json``.
    precision : str
        ``fp32``, ``tf32``, ``fp16`` or ``int8``: in which it was computed. In a lower precision, some
        networks may run in fp32: see ``engine.fp32_networks`` of ``GET /v1/model``. Results of earlier
        releases are in fp32.
    """

    name: str
    version: str
    digest: str
    precision: str = "fp32"


class Timing(OpenModel):
    """Processing times, in milliseconds.

    Attributes
    ----------
    queue : float
        From arrival in the service to the start of its computation.
    compute : float
        In the engine; fields of view of one batch share the batch's time.
    total : float
        From arrival in the service until the result was made, before it is logged and published.
    """

    queue: float
    compute: float
    total: float


class Result(OpenModel):
    """The classification of a field of view: senescent or control, with probability and explanation.

    Attributes
    ----------
    id : UUID
        Version 7, so that ids sort by time.
    label : str
        One of the ensemble's classes.
    probability : float
        Of the class senescent: the mean over the networks.
    networks : dict of str to float
        The probability of each network.
    deadline_met : bool
        Whether ``timing_ms.total`` met the service's deadline.
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
