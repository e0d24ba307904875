"""Entries of the run log as they are written, and the data that queries return."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
from pydantic import Field

from senoscope.engine.gradcam import ensemble_map
from senoscope.engine.manifest import Manifest
from senoscope_client.models.base import OpenModel
from senoscope_client.models.responses import SeriesCounts
from senoscope_client.models.result import Result


@dataclass(frozen=True, slots=True)
class Entry:
    """A result to be logged; without pixels."""

    result: Result
    document: str  # the result as JSON, without inline maps
    gradcam: bytes  # the grids of all networks, in the manifest's order
    manifest: Manifest  # of the ensemble that computed it

    @classmethod
    def of(
        cls, result: Result, gradcams: Sequence[npt.NDArray[np.float32]], manifest: Manifest, document: bytes
    ) -> Entry:
        """Create the entry of a result and its networks' grids, float32 [h_k, w_k] each."""
        blob = b"".join(np.ascontiguousarray(grid, "<f4").tobytes() for grid in gradcams)
        return cls(result, document.decode(), blob, manifest)

    @property
    def created_ms(self) -> int:
        """Time of the result, in milliseconds since the epoch: the first bits of its id."""
        return self.result.id.int >> 80


@dataclass(frozen=True)
class Maps:
    """The Grad-CAM maps of a logged result."""

    networks: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]  # [K], by network
    gradcams: tuple[npt.NDArray[np.float32], ...]  # K arrays [h_k, w_k]
    shape: tuple[int, int]  # rows and columns of the field of view
    channels: tuple[str, ...]  # of the ensemble that computed it

    def map(self) -> npt.NDArray[np.float32]:
        """Return the ensemble's Grad-CAM map, [H, W], in 0..1."""
        return ensemble_map(self.gradcams, self.probabilities, *self.shape)


@dataclass(frozen=True)
class ModelLayout:
    """The part of a manifest that is needed to read logged grids."""

    grids: dict[str, tuple[int, int]]
    """Rows and columns by network, in the order in which the log stores them."""
    shape: tuple[int, int]
    channels: tuple[str, ...]

    @classmethod
    def of(cls, manifest: str) -> ModelLayout:
        """Read the layout from a manifest of any version: no other fields are parsed."""
        fields: dict[str, Any] = json.loads(manifest)
        spec = fields["input"]
        return cls(
            {network["name"]: tuple(network["gradcam_grid"]) for network in fields["networks"]},
            (spec["height"], spec["width"]),
            tuple(channel["name"] for channel in spec["channels"]),
        )

    def maps(self, result: Result, gradcam: bytes) -> Maps:
        """Return the maps of a result from the logged bytes."""
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
    """Conditions on results; None: no condition. All bounds are included but ``until``."""

    series: UUID | None = None
    label: str | None = None
    kind: str | None = None
    since: datetime | None = None  # time of the result
    until: datetime | None = None
    min_probability: float | None = None
    max_probability: float | None = None


@dataclass(frozen=True)
class Page:
    """Results, newest first, and the cursor of the page of older ones; None for the last page."""

    results: tuple[Result, ...]
    next: int | None


class SeriesCounting(OpenModel):
    """What is needed to continue counting the frames of a series; see `senoscope.stream.series.Series`."""

    next_frame: int | None = None
    joined_at: int | None = None
    holes: tuple[tuple[int, int], ...] = ()  # gaps, the ends not included
    refused_ranges: tuple[tuple[int, int], ...] = ()  # refused frames, both ends included
    refused: tuple[int, ...] = ()  # the same, one by one: of earlier versions
    forgotten_below: int = 0
    forgotten_missing: int = 0
    restarted_ms: int = 0


@dataclass(frozen=True)
class LostCount:
    """The number of frames that were lost for one reason, and the ranges that are still known."""

    count: int
    ranges: list[tuple[int, int]]


class SeriesSnapshot(SeriesCounts):
    """A series as its source reports it, and as the run log stores it: only with what the source has set."""

    kind: str | None = None  # ``file`` for a file of a watched folder
    counting: SeriesCounting = SeriesCounting()
    # Received frames without a result, by reason.
    lost: dict[str, LostCount] = Field(default_factory=dict)


@dataclass(frozen=True)
class LoggedSeries:
    """A series as last saved, and the labels of its logged results."""

    snapshot: SeriesSnapshot
    labels: dict[str, int]  # number of results of each label
    updated_ms: int  # time of the snapshot, in milliseconds since the epoch
