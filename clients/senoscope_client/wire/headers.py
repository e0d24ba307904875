"""The JSON headers of the frame stream, format ``nlo-fov`` version 1.0.

A series consists of one ``start``, any number of ``image`` with a ``heartbeat`` every second between them,
and one ``end``. Every header identifies its series, so that each message can be interpreted without the
previous ones. Optional keys may be left out or be null. Unknown keys are rejected: data of a laboratory
belong into ``user_data``.
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, JsonValue, model_validator

from senoscope_client.models.base import StrictModel
from senoscope_client.models.coordinates import Count, Index, Mosaic, Position, Timestamp

# No slash, blank or control character, because the name is a level of the topic.
Instrument = Annotated[str, Field(pattern=r"^[^\s/\x00-\x1f\x7f]{1,64}$")]
ChannelName = Annotated[str, Field(min_length=1, max_length=64)]
Extent = Annotated[int, Field(ge=1, le=65536)]
Wavelength = Annotated[float, Field(gt=0)]
PixelType = Literal["uint8", "uint16", "float32"]


def _require_finite(value: JsonValue) -> JsonValue:
    """Reject NaN and infinity, which JSON does not have, though some programs write and read them."""
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("a number is NaN or infinite")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _require_finite(inner)
    return value


UserData = Annotated[dict[str, JsonValue], AfterValidator(_require_finite)]


class _Header(StrictModel):
    """Fields of every header.

    Attributes
    ----------
    instrument : str
        The microscope's name, 1 to 64 characters without slash or blank; a level of the topic.
    series_id : str
        The operator's name for the series.
    series_uid : UUID
        Identifies the series, also among series with the same name.
    """

    format: Literal["nlo-fov"] = "nlo-fov"
    version: Literal["1.0"] = "1.0"
    instrument: Instrument
    series_id: Annotated[str, Field(max_length=1024)]
    series_uid: UUID


class _SeriesHeader(_Header):
    """Properties of a whole series.

    Attributes
    ----------
    planned_frames : int or None
        Number of frames of the series if it is not stopped early.
    mosaic : Mosaic or None
        The grid of stage positions.
    pump_wavelength_nm, stokes_wavelength_nm : float or None
        The two lasers of the SRS channel.
    wavenumber_cm1 : float or None
        The Raman shift that the lasers excite.
    user_data : dict
        Any other data; passed on, not interpreted.
    """

    planned_frames: Count | None = None
    mosaic: Mosaic | None = None
    pump_wavelength_nm: Wavelength | None = None
    stokes_wavelength_nm: Wavelength | None = None
    wavenumber_cm1: Wavelength | None = None
    user_data: UserData = Field(default_factory=dict)


class StartHeader(_SeriesHeader):
    """The start of a series; its fields apply to the whole series."""

    htype: Literal["nlo-fov-start-1.0"] = "nlo-fov-start-1.0"
    type: Literal["start"] = "start"


class HeartbeatHeader(_SeriesHeader):
    """The series is open and its publisher is running; repeats the fields of `StartHeader`.

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
        Type of the pixels, little-endian, in raw detector units.
    channels : tuple of str
        Names of the channels, in the order of the first axis, each once.
    timestamp : Timestamp
        When the frame was acquired.
    pixel_size_um : float
        Edge length of a (square) pixel.
    position_um : Position or None
        Stage position, if it is known.
    index : Index or None
        Indices of the frame in the acquisition, if they are known.
    exposure_ms : float or None
        Duration of the scan of the frame.
    user_data : dict
        Any other data; passed on, not interpreted.
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
    def _check_channel_names(self) -> Self:
        if len(self.channels) != self.shape[0]:
            raise ValueError(f"{len(self.channels)} channel names for {self.shape[0]} channels")
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("two channels have the same name")
        return self


class EndHeader(_Header):
    """The end of a series.

    Attributes
    ----------
    frames_sent : int
        Number of frames that were sent; one more than the number of the last frame.
    reason : str
        Any text of the publisher, such as ``completed`` or ``aborted``.
    """

    htype: Literal["nlo-fov-end-1.0"] = "nlo-fov-end-1.0"
    type: Literal["end"] = "end"
    frames_sent: Count
    reason: Annotated[str, Field(max_length=1024)]


Header = StartHeader | ImageHeader | EndHeader | HeartbeatHeader
