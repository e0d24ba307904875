"""What the link to a service tells the widget."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any
from uuid import UUID

import numpy.typing as npt

from senoscope_client.models.result import Result


class Link(Enum):
    """How it stands with the service."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    """Not there or not ready; it is asked again."""
    REFUSED = "refused"
    """It will not be asked again before somebody changes something."""


@dataclass(frozen=True)
class LinkState:
    """How it stands with the service, and the same in words."""

    link: Link
    words: str


@dataclass(frozen=True)
class EnsembleFacts:
    """What layers and choices are made of.

    Attributes
    ----------
    channels, networks : tuple of str
        Names.
    positive : str
        The class that probabilities are of.
    height, width : int
        Of a field of view, in pixels.
    pixel_size_um : float
        Of those that the ensemble was trained on; frames may tell of their own.
    """

    name: str
    version: str
    digest: str
    channels: tuple[str, ...]
    networks: tuple[str, ...]
    positive: str
    height: int
    width: int
    pixel_size_um: float

    @classmethod
    def of(cls, model: dict[str, Any]) -> EnsembleFacts:
        """Out of the answer of ``GET /v1/model``."""
        manifest = model["manifest"]
        wanted = manifest["input"]
        return cls(
            name=model["name"],
            version=model["version"],
            digest=model["digest"],
            channels=tuple(channel["name"] for channel in wanted["channels"]),
            networks=tuple(network["name"] for network in manifest["networks"]),
            positive=manifest["ensemble"]["classes"][1],
            height=wanted["height"],
            width=wanted["width"],
            pixel_size_um=wanted["pixel_size_um"],
        )


@dataclass(frozen=True)
class StreamWords:
    """How it stands with the microscope's stream, in words."""

    words: str


@dataclass(frozen=True)
class Told:
    """A result, as it was made."""

    result: Result


@dataclass(frozen=True)
class Earlier:
    """What was seen of a series before the plugin listened, oldest first."""

    series_uid: UUID
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Seen:
    """A field of view that was asked for.

    Attributes
    ----------
    result : Result
        With its Grad-CAM grids.
    pixels : array [C, H, W] or None
        None where the service no longer remembers them.
    """

    result: Result
    pixels: npt.NDArray[Any] | None


@dataclass(frozen=True)
class Classified:
    """The answer to a posted stack."""

    results: tuple[Result, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """Something that somebody asked for could not be done; posting, or else looking."""

    words: str
    posting: bool = False


Event = LinkState | EnsembleFacts | StreamWords | Told | Earlier | Seen | Classified | Failed
