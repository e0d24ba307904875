"""From a prediction to a result."""

from __future__ import annotations

import base64
import os
import threading
import time
from dataclasses import dataclass, field, replace
from functools import cached_property
from uuid import UUID

import numpy as np
import numpy.typing as npt

from senoscope.engine import Ensemble, IntensityRange, Prediction
from senoscope.engine.uncertainty import uncertainty
from senoscope.fov import Fov
from senoscope.results.pictures import map_png
from senoscope.runlog.entries import Maps
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

# Below this, a few hot pixels would flag every field of view.
_SATURATED_FRACTION = 0.01
# A blocked beam leaves noise around the detector's offset, and perhaps some hot pixels.
_SIGNAL_FRACTION = 0.001
# Memory of a result and its record besides arrays, measured.
_RECORD_BYTES = 10 * 1024
# Corrections of the clock by less than 5 s keep the order of identifiers.
_SET_BACK_TICKS = 5000 << 12


class _Clock:
    """Strictly increasing ticks of 1/4096 ms since 1970, unless the clock is set back by more than 5 s.

    After such a correction, times and order are those of the corrected clock: a clock that was a year ahead
    for a moment must not leave all later results in the future.
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
    """Return a UUID of version 7 (RFC 9562) that sorts after all earlier ones of this process.

    Where the clock was set back by more than 5 s, it sorts by the corrected time.

    48 bits of milliseconds, 12 bits of a millisecond's fraction (method 3 of section 6.2), 62 random bits.
    """
    milliseconds, fraction = divmod(_clock.tick(), 4096)
    random = int.from_bytes(os.urandom(8), "big") >> 2
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random)


@dataclass(frozen=True)
class Record:
    """A result with the field of view and the prediction that it was made from."""

    result: Result  # without inline maps
    fov: Fov
    prediction: Prediction
    channels: tuple[str, ...]  # of the ensemble that made it
    saturated: tuple[float, ...]  # fraction of each channel's pixels above the intensity range
    _encoded: dict[CamMode, bytes] = field(default_factory=dict, repr=False, compare=False)

    def detached(self) -> Record:
        """Return a copy that keeps no memory of others alive.

        Pixels of a stack are a view of the whole stack; encoded forms and the request are of use only while
        sinks are notified.
        """
        pixels = self.fov.pixels
        if self.fov.source.kind != "stream" and _keeps_more_alive(pixels):
            pixels = pixels.copy()
        return replace(self, fov=replace(self.fov, pixels=pixels, request=None), _encoded={})

    @property
    def nbytes(self) -> int:
        """Bytes of memory that a detached record takes."""
        return self.fov.pixels.nbytes + self.prediction.nbytes + _RECORD_BYTES

    def flagged(self, flag: Flag) -> Record:
        """Return the record with one more flag."""
        result = self.result.model_copy(update={"flags": [*self.result.flags, flag]})
        return Record(result, self.fov, self.prediction, self.channels, self.saturated)

    def json(self, cam: CamMode) -> bytes:
        """Return the result as JSON; encoded once for all sinks."""
        if cam not in self._encoded:
            result = with_maps(self.result, self.prediction, cam)
            self._encoded[cam] = result.model_dump_json(exclude_none=True).encode()
        return self._encoded[cam]


def _keeps_more_alive(pixels: np.ndarray) -> bool:
    """Return whether an array is a view of more memory than its own; one of a stack of one FOV is not."""
    base = pixels.base
    return base is not None and not (
        type(base) is np.ndarray and base.flags.owndata and base.size == pixels.size
    )


def with_maps(result: Result, maps: Prediction | Maps, cam: CamMode) -> Result:
    """Return a result with the Grad-CAM maps inline that ``cam`` selects."""
    if cam == "none":
        return result
    update: dict[str, object] = {}
    if cam == "grid":
        update["grids"] = {
            name: _rounded(grid) for name, grid in zip(maps.networks, maps.gradcams, strict=True)
        }
    else:
        update["png"] = base64.b64encode(map_png(maps.map())).decode()
    return result.model_copy(update={"gradcam": result.gradcam.model_copy(update=update)})


def _rounded(grid: npt.NDArray[np.float32]) -> list[list[float]]:
    """Round to four decimals of the maximum: finer than any display and a third of the bytes."""
    peak = float(grid.max())
    decimals = 6 if peak <= 0 else max(0, 4 - int(np.floor(np.log10(peak))))
    rounded: list[list[float]] = np.round(grid.astype(np.float64), decimals).tolist()
    return rounded


@dataclass(frozen=True)
class ResultMaker:
    """Makes results of one ensemble."""

    ensemble: Ensemble
    deadline_ms: float | None  # from arrival to the result; None: no result is late
    linked: bool  # whether results link to their maps, which a server must then serve

    @cached_property
    def model(self) -> ModelRef:
        """The ensemble, as its results state it."""
        manifest, ensemble = self.ensemble.manifest, self.ensemble
        return ModelRef(
            name=manifest.name,
            version=manifest.version,
            digest=ensemble.digest,
            precision=ensemble.precision,
        )

    def make(
        self, fov: Fov, prediction: Prediction, bounds: IntensityRange, started_s: float, compute_ms: float
    ) -> Record:
        """Return the record of a classified field of view; its total time ends now.

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
            model=self.model,
            timing_ms=Timing(
                queue=(started_s - fov.arrived_s) * 1e3,
                compute=compute_ms,
                total=total_ms,
            ),
            deadline_met=None if self.deadline_ms is None else total_ms <= self.deadline_ms,
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
                        message=f"{name} has almost no signal: check its light source and its detector. If "
                        "both are on, this field of view is empty. The label means little",
                        channel=name,
                    )
                )
        if not self.ensemble.manifest.for_science:
            flags.append(Flag(code="not_for_science", message=self.ensemble.manifest.intended_use))
        return flags
