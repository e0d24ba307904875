"""Events that the link to a service sends to the widget."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

import numpy.typing as npt

from senoscope_client.models.result import Result
from senoscope_client.models.status import ModelInfo, StreamStatus


class LinkStatus(Enum):
    """Status of the connection to the service."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    """The service is not reachable or not ready; the link tries again."""
    REFUSED = "refused"
    """The link does not try again until the user changes something."""


@dataclass(frozen=True)
class LinkState:
    """The status of the connection to the service, and its description."""

    status: LinkStatus
    text: str


@dataclass(frozen=True)
class EnsembleInfo:
    """Properties of the ensemble that layers and choices need.

    Attributes
    ----------
    channels, networks : tuple of str
        Names.
    positive : str
        The class that probabilities are of.
    height, width : int
        Of a field of view, in pixels.
    pixel_size_um : float
        Of the fields of view that the ensemble was trained on; frames may have another one.
    """

    digest: str
    channels: tuple[str, ...]
    networks: tuple[str, ...]
    positive: str
    height: int
    width: int
    pixel_size_um: float

    @classmethod
    def from_model(cls, model: ModelInfo) -> EnsembleInfo:
        """Read the properties from the description of the ensemble in use."""
        model_input = model.manifest["input"]
        return cls(
            digest=model.digest,
            channels=tuple(channel["name"] for channel in model_input["channels"]),
            networks=tuple(network["name"] for network in model.manifest["networks"]),
            positive=model.manifest["ensemble"]["classes"][1],
            height=model_input["height"],
            width=model_input["width"],
            pixel_size_um=model_input["pixel_size_um"],
        )


@dataclass(frozen=True)
class EarlierResults:
    """Results of a series that were made before the plugin was connected, oldest first."""

    series_uid: UUID
    results: tuple[Result, ...]


@dataclass(frozen=True)
class FovLoaded:
    """A requested field of view.

    Attributes
    ----------
    result : Result
        With its Grad-CAM grids.
    pixels : array [C, H, W] or None
        None if the service no longer holds them.
    """

    result: Result
    pixels: npt.NDArray[Any] | None


@dataclass(frozen=True)
class StackClassified:
    """The response to a posted stack."""

    results: tuple[Result, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class RequestFailed:
    """A request of the user failed: posting a stack, or else loading a field of view."""

    text: str
    posting: bool = False


Event = (
    LinkState
    | EnsembleInfo
    | StreamStatus
    | Result
    | EarlierResults
    | FovLoaded
    | StackClassified
    | RequestFailed
)
"""A `Result` is one that was just made, a `StreamStatus` the state of the stream."""
