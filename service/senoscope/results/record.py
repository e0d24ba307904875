"""From a prediction to the result that is told, and the memory of the most recent ones."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Protocol
from uuid import UUID

import numpy as np
import numpy.typing as npt

from senoscope.engine import Ensemble, IntensityRange, Prediction
from senoscope.engine.uncertainty import uncertainty
from senoscope.fov import Fov
from senoscope.results.pictures import map_png
from senoscope_client.models.result import (
    CamMode,
    Flag,
    Gradcam,
    ModelRef,
    Normalization,
    Result,
    Timing,
    Uncertainty,
)

# Below this a few hot pixels would raise the flag on every field of view.
_SATURATED_FRACTION = 0.01
# A blocked beam leaves noise around the detector's offset, and perhaps some hot pixels.
_SIGNAL_FRACTION = 0.001
# What Python takes for a result, its record and their places in memory, measured.
_RECORD_BYTES = 10 * 1024


# A clock that is corrected by less than this keeps the order of identifiers: 5 s.
_SET_BACK_TICKS = 5000 << 12


class _Clock:
    """Ticks of 1/4096 ms since 1970; each is later than the one before it, unless the clock is set back far.

    Small corrections keep the order. After a large one, times and order are those of the corrected clock: a
    clock that was a year ahead for a moment must not leave all that follows in the future.
    """

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def tick(self) -> int:
        with self._lock:
            now = (time.time_ns() << 12) // 1_000_000
            self._last = now if now < self._last - _SET_BACK_TICKS else max(self._last + 1, now)
            return self._last


_clock = _Clock()


def uuid7() -> UUID:
    """A UUID of version 7 (RFC 9562) that sorts after all that this process made before.

    Where the clock was set back by more than 5 s, it sorts by the corrected time.

    48 bits of milliseconds, 12 bits of a millisecond's fraction (method 3 of section 6.2), 62 random bits.
    """
    milliseconds, fraction = divmod(_clock.tick(), 4096)
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random)


@dataclass(frozen=True)
class Record:
    """A result together with what it was made from.

    Attributes
    ----------
    result : Result
        Without inline maps.
    fov : Fov
    prediction : Prediction
    channels : tuple of str
        Of the ensemble that made it.
    saturated : tuple of float
        Fraction of each channel's pixels above the intensity range.
    """

    result: Result
    fov: Fov
    prediction: Prediction
    channels: tuple[str, ...]
    saturated: tuple[float, ...]
    _encoded: dict[CamMode, bytes] = field(default_factory=dict, repr=False, compare=False)

    def remembered(self) -> Record:
        """The same record, with nothing that it does not need and nothing that belongs to others.

        Pixels of a stack are a view of the whole stack, encoded forms and the request are for those who are
        notified now.
        """
        pixels = self.fov.pixels
        if pixels.base is not None and self.fov.source.kind != "stream":
            pixels = pixels.copy()
        return replace(self, fov=replace(self.fov, pixels=pixels, request=None), _encoded={})

    @property
    def nbytes(self) -> int:
        """Memory of a record that is remembered."""
        return self.fov.pixels.nbytes + self.prediction.nbytes + _RECORD_BYTES

    def result_with(self, cam: CamMode) -> Result:
        """The result with as much of the Grad-CAM map inline as ``cam`` says."""
        return with_maps(self.result, self.prediction, cam)

    def flagged(self, flag: Flag) -> Record:
        """The same record with one more flag."""
        result = self.result.model_copy(update={"flags": [*self.result.flags, flag]})
        return Record(result, self.fov, self.prediction, self.channels, self.saturated)

    def json(self, cam: CamMode) -> bytes:
        """The result as JSON; encoded once however many are told."""
        if cam not in self._encoded:
            self._encoded[cam] = self.result_with(cam).model_dump_json(exclude_none=True).encode()
        return self._encoded[cam]


class Maps(Protocol):
    """Grad-CAM maps, of a prediction or out of the run log."""

    @property
    def networks(self) -> tuple[str, ...]:
        """The K networks."""
        ...

    @property
    def gradcams(self) -> tuple[npt.NDArray[np.float32], ...]:
        """K float32 arrays [h_k, w_k]."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the field of view."""
        ...

    def map(self) -> npt.NDArray[np.float32]:
        """The ensemble's map, [H, W], in 0..1."""
        ...


def with_maps(result: Result, maps: Maps, cam: CamMode) -> Result:
    """A result with as much of its Grad-CAM map inline as ``cam`` says."""
    if cam == "none":
        return result
    update: dict[str, object] = {}
    if cam == "grid":
        # Four decimals of each map's maximum are finer than any display and a third of the bytes.
        update["grids"] = {
            name: np.round(grid.astype(np.float64), _decimals(float(grid.max()))).tolist()
            for name, grid in zip(maps.networks, maps.gradcams, strict=True)
        }
    else:
        update["png"] = base64.b64encode(map_png(maps.map())).decode()
    return result.model_copy(update={"gradcam": result.gradcam.model_copy(update=update)})


def _decimals(peak: float) -> int:
    return 6 if peak <= 0 else max(0, 4 - int(np.floor(np.log10(peak))))


@dataclass(frozen=True)
class ResultMaker:
    """Makes results of one ensemble.

    Attributes
    ----------
    ensemble : Ensemble
    deadline_ms : float
        From arrival to telling.
    linked : bool
        Whether a server can show the maps, so that results link to them.
    """

    ensemble: Ensemble
    deadline_ms: float
    linked: bool

    def make(
        self, fov: Fov, prediction: Prediction, bounds: IntensityRange, started_s: float, compute_ms: float
    ) -> Record:
        """The record of a classified field of view; its total time ends now.

        Parameters
        ----------
        bounds : IntensityRange
            The range that it was classified with.
        started_s : float
            When its computation began, by ``time.perf_counter``.
        compute_ms : float
            How long that took.
        """
        manifest = self.ensemble.manifest
        entropy, information, agreement = uncertainty(prediction.probabilities, manifest.ensemble.threshold)
        saturated = tuple(bounds.saturated_fraction(fov.pixels).tolist())
        flags = self._flags(fov, saturated, bounds)
        identifier = uuid7()
        total_ms = (time.perf_counter() - fov.arrived_s) * 1e3
        result = Result(
            id=identifier,
            source=fov.source,
            label=prediction.label,
            probability=prediction.probability,
            networks={
                name: float(p) for name, p in zip(prediction.networks, prediction.probabilities, strict=True)
            },
            uncertainty=Uncertainty(entropy=entropy, mutual_information=information, agreement=agreement),
            flags=flags,
            gradcam=Gradcam(href=f"/v1/results/{identifier}/gradcam.png" if self.linked else None),
            normalization=Normalization(
                source=bounds.source, low=bounds.low.tolist(), high=bounds.high.tolist()
            ),
            model=ModelRef(name=manifest.name, version=manifest.version, digest=self.ensemble.digest),
            timing_ms=Timing(
                queue=(started_s - fov.arrived_s) * 1e3,
                compute=compute_ms,
                total=total_ms,
            ),
            deadline_met=total_ms <= self.deadline_ms,
        )
        return Record(result, fov, prediction, manifest.input.channel_names, saturated)

    def _flags(self, fov: Fov, saturated: tuple[float, ...], bounds: IntensityRange) -> list[Flag]:
        flags = []
        names = self.ensemble.manifest.input.channel_names
        trained = self.ensemble.manifest.normalization.channels
        for name, high, fraction, channel in zip(names, bounds.high, saturated, trained, strict=True):
            usual = channel.saturated_p99
            if fraction >= _SATURATED_FRACTION and fraction > (usual or 0):
                more = "" if usual is None else f", more than 99 in 100 training images ({usual:.1%})"
                flags.append(
                    Flag(
                        code="saturated",
                        message=f"{name} is above the {bounds.source}'s intensity range (to {high:g}) in "
                        f"{fraction:.1%} of its pixels{more}; detail there is lost to the networks",
                        channel=name,
                        value=round(fraction, 6),
                    )
                )
        for name, fraction in zip(names, bounds.signal_fraction(fov.pixels), strict=True):
            if fraction < _SIGNAL_FRACTION:
                flags.append(
                    Flag(
                        code="no_signal",
                        message=f"{name} shows next to nothing; is its light on, and its detector? Otherwise "
                        "this field of view is empty. The label means little",
                        channel=name,
                    )
                )
        if not self.ensemble.manifest.for_science:
            flags.append(Flag(code="not_for_science", message=self.ensemble.manifest.intended_use))
        return flags


class RecentRecords:
    """The most recent records, as many as fit into a given memory.

    Pictures of Grad-CAM over the channels need the pixels, which no log keeps.

    Parameters
    ----------
    max_bytes : int
        Of all that is remembered: pixels, maps, features and results. One record is always remembered.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._records: OrderedDict[UUID, Record] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, record: Record) -> None:
        """Remember a record, and forget the oldest ones that no longer fit."""
        record = record.remembered()
        with self._lock:
            self._records[record.result.id] = record
            self._bytes += record.nbytes
            while self._bytes > self._max_bytes and len(self._records) > 1:
                _, forgotten = self._records.popitem(last=False)
                self._bytes -= forgotten.nbytes

    def get(self, identifier: UUID) -> Record | None:
        """The record of that id; None if there never was one, or it is too long ago."""
        with self._lock:
            return self._records.get(identifier)
