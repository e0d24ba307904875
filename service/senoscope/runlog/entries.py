"""What the log keeps of one result, and what it gives back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from senoscope.engine.gradcam import ensemble_map
from senoscope.engine.manifest import Manifest
from senoscope_client.models.result import Result


@dataclass(frozen=True, slots=True)
class Entry:
    """A result on its way into the log; holds no pixels.

    Attributes
    ----------
    result : Result
    document : str
        It as JSON, without inline maps.
    gradcam : bytes
        The grids of all networks, in the manifest's order.
    manifest : Manifest
        Of the ensemble that made it.
    """

    result: Result
    document: str
    gradcam: bytes
    manifest: Manifest

    @classmethod
    def of(
        cls, result: Result, gradcams: Sequence[npt.NDArray[np.float32]], manifest: Manifest, document: bytes
    ) -> Entry:
        """The entry of a result and its networks' grids, float32 [h_k, w_k] each."""
        blob = b"".join(np.ascontiguousarray(grid, "<f4").tobytes() for grid in gradcams)
        return cls(result, document.decode(), blob, manifest)

    @property
    def created_ms(self) -> int:
        """When the result was made, in milliseconds since the epoch: the first bits of its id."""
        return self.result.id.int >> 80


@dataclass(frozen=True)
class Maps:
    """The Grad-CAM maps of a logged result.

    Attributes
    ----------
    networks : tuple of K str
    probabilities : float32 array [K]
    gradcams : tuple of K float32 arrays [h_k, w_k]
    shape : tuple of int
        Rows and columns of the field of view.
    channels : tuple of str
        Of the ensemble that made it.
    """

    networks: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]
    gradcams: tuple[npt.NDArray[np.float32], ...]
    shape: tuple[int, int]
    channels: tuple[str, ...]

    def map(self) -> npt.NDArray[np.float32]:
        """The ensemble's Grad-CAM map, [H, W], in 0..1."""
        return ensemble_map(self.gradcams, self.probabilities, *self.shape)


@dataclass(frozen=True)
class ModelLayout:
    """What a manifest tells of the grids in the log.

    Attributes
    ----------
    grids : dict of str to (rows, columns)
        By network, in the order in which they were written.
    """

    grids: dict[str, tuple[int, int]]
    shape: tuple[int, int]
    channels: tuple[str, ...]

    @classmethod
    def of(cls, manifest: str) -> ModelLayout:
        """Read only what is needed, so that manifests of any version can be read."""
        fields: dict[str, Any] = json.loads(manifest)
        spec = fields["input"]
        return cls(
            {network["name"]: tuple(network["gradcam_grid"]) for network in fields["networks"]},
            (spec["height"], spec["width"]),
            tuple(channel["name"] for channel in spec["channels"]),
        )

    def maps(self, result: Result, gradcam: bytes) -> Maps:
        """A result's maps, from the bytes that the log keeps."""
        values = np.frombuffer(gradcam, "<f4").astype(np.float32)
        ends = np.cumsum([rows * columns for rows, columns in self.grids.values()])[:-1]
        parts = np.split(values, ends)
        return Maps(
            networks=tuple(self.grids),
            probabilities=np.array([result.networks[name] for name in self.grids], np.float32),
            gradcams=tuple(p.reshape(shape) for p, shape in zip(parts, self.grids.values(), strict=True)),
            shape=self.shape,
            channels=self.channels,
        )


@dataclass(frozen=True)
class ResultFilter:
    """Which results are asked for; None: all.

    Attributes
    ----------
    since, until : datetime or None
        When the result was made: from ``since`` on, before ``until``.
    min_probability, max_probability : float or None
        Both included.
    """

    series: UUID | None = None
    label: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    min_probability: float | None = None
    max_probability: float | None = None


@dataclass(frozen=True)
class Page:
    """Results, newest first, and where the next older ones begin.

    Attributes
    ----------
    next : int or None
        Cursor of the next page; None if this is the last one.
    """

    results: tuple[Result, ...]
    next: int | None


@dataclass(frozen=True)
class LoggedSeries:
    """A series as it was last seen, and how its logged results are labelled.

    Attributes
    ----------
    snapshot : dict
        As the receiver described it.
    labels : dict of str to int
    updated_ms : int
        When the snapshot was taken, in milliseconds since the epoch.
    """

    snapshot: dict[str, Any]
    labels: dict[str, int]
    updated_ms: int
