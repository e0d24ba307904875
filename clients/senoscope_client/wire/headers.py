"""The JSON headers of the frame stream, format ``nlo-fov`` version 1.0.

A series is one ``start``, then ``image`` after ``image`` with a ``heartbeat`` every second between them,
then one ``end``. Every header names its series, so that a message makes sense to a receiver that has seen
no other. Optional keys may be left out or be null. Unknown keys are refused: what a laboratory wants to
add goes into ``user_data``.
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, JsonValue, model_validator

from senoscope_client.models.base import StrictModel
from senoscope_client.models.coordinates import Count, Index, Mosaic, Position, Timestamp

# No slash, blank or control character, because the name is one level of the topic.
Instrument = Annotated[str, Field(pattern=r"^[^\s/\x00-\x1f\x7f]{1,64}$")]
ChannelName = Annotated[str, Field(min_length=1, max_length=64)]
Extent = Annotated[int, Field(ge=1, le=65536)]
Wavelength = Annotated[float, Field(gt=0)]
PixelType = Literal["uint8", "uint16", "float32"]


def _all_finite(value: JsonValue) -> JsonValue:
    """JSON has no NaN and no infinity, though some writers and readers have."""
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("a number is NaN or infinite")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _all_finite(inner)
    return value


UserData = Annotated[dict[str, JsonValue], AfterValidator(_all_finite)]


class _Header(StrictModel):
    """What every header holds.

    Attributes
    ----------
    instrument : str
        The microscope's name, 1 to 64 characters without slash or blank; a level of the topic.
    series_id : str
        The operator's name for the series.
    series_uid : UUID
        Tells series of the same name apart.
    """

    format: Literal["nlo-fov"] = "nlo-fov"
    version: Literal["1.0"] = "1.0"
    instrument: Instrument
    series_id: Annotated[str, Field(max_length=1024)]
    series_uid: UUID


class _SeriesHeader(_Header):
    """What is true of a whole series.

    Attributes
    ----------
    planned_frames : int or None
        How many frames there will be if nothing stops the series.
    mosaic : Mosaic or None
        The grid of stage positions.
    pump_wavelength_nm, stokes_wavelength_nm : float or None
        The two lasers of the SRS channel.
    wavenumber_cm1 : float or None
        The Raman shift that they address.
    user_data : dict
        Anything else; carried along, not interpreted.
    """

    planned_frames: Count | None = None
    mosaic: Mosaic | None = None
    pump_wavelength_nm: Wavelength | None = None
    stokes_wavelength_nm: Wavelength | None = None
    wavenumber_cm1: Wavelength | None = None
    user_data: UserData = Field(default_factory=dict)


class StartHeader(_SeriesHeader):
    """A series begins; its fields are true of all of it."""

    htype: Literal["nlo-fov-start-1.0"] = "nlo-fov-start-1.0"
    type: Literal["start"] = "start"


class HeartbeatHeader(_SeriesHeader):
    """The series is open and its publisher lives; repeats the fields of `StartHeader`.

    Attributes
    ----------
    frame : int or None
        Number of the last frame sent; None before the first.
    """

    htype: Literal["nlo-fov-heartbeat-1.0"] = "nlo-fov-heartbeat-1.0"
    type: Literal["heartbeat"] = "heartbeat"
    frame: Count | None = None


class ImageHeader(_Header):
    """One field of view.

    Attributes
    ----------
    frame : int
        From 0, without gaps within the series.
    shape : (int, int, int)
        Channels, rows, columns.
    axes : {"CYX"}
        The order of ``shape``.
    dtype : {"uint8", "uint16", "float32"}
        Of the pixels, little-endian, raw detector units.
    channels : tuple of str
        Their names, in the order of the first axis, each once.
    timestamp : Timestamp
        When the frame was acquired.
    pixel_size_um : float
        Edge of a (square) pixel.
    position_um : Position or None
        Where the stage stood, if the instrument tells.
    index : Index or None
        The frame's place in the acquisition, if the instrument tells.
    exposure_ms : float or None
        Time that the scan of the frame took.
    user_data : dict
        Anything else; carried along, not interpreted.
    """

    htype: Literal["array-1.0"] = "array-1.0"
    type: Literal["image"] = "image"
    frame: Count
    shape: tuple[Extent, Extent, Extent]
    axes: Literal["CYX"] = "CYX"
    dtype: PixelType
    channels: tuple[ChannelName, ...]
    timestamp: Timestamp
    pixel_size_um: Annotated[float, Field(gt=0)]
    position_um: Position | None = None
    index: Index | None = None
    exposure_ms: Annotated[float, Field(ge=0)] | None = None
    user_data: UserData = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_name_per_channel(self) -> Self:
        if len(self.channels) != self.shape[0]:
            raise ValueError(f"{len(self.channels)} channel names for {self.shape[0]} channels")
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("two channels have the same name")
        return self


class EndHeader(_Header):
    """A series is over.

    Attributes
    ----------
    frames_sent : int
        How many frames were sent; the last one's number is one less.
    reason : str
        Such as ``completed`` or ``aborted``, in the publisher's words.
    """

    htype: Literal["nlo-fov-end-1.0"] = "nlo-fov-end-1.0"
    type: Literal["end"] = "end"
    frames_sent: Count
    reason: Annotated[str, Field(max_length=1024)]


Header = StartHeader | ImageHeader | EndHeader | HeartbeatHeader
