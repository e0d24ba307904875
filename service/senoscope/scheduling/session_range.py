"""The intensity range of a session: calibrated from the stream or from a stack, kept over restarts."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import structlog
from pydantic import ValidationError

from senoscope.engine import IntensityRange
from senoscope.engine.intensity import fit_range
from senoscope.fov import Fov
from senoscope.runlog.keeper import LogKeeper
from senoscope.scheduling.active_ensemble import ActiveEnsemble
from senoscope_client.errors import Conflict, InvalidRequest, LogUnavailable, NotReady, PayloadTooLarge
from senoscope_client.models.base import OpenModel
from senoscope_client.models.result import Source
from senoscope_client.models.status import CalibrationProgress, NormalizationStatus

_log = structlog.get_logger(__name__)
# Keys of the run log have 128 characters at most.
_MAX_NAME = 96
RequireInUse = Callable[[ActiveEnsemble], None]
"""Raises NotReady if a range that was fitted for that ensemble does not fit the one in use."""


class CalibratedRange(OpenModel):
    """A calibrated intensity range."""

    channels: tuple[str, ...]
    low: tuple[float, ...]  # per channel, in raw detector units
    high: tuple[float, ...]
    fovs: int  # fields of view that it was fitted on
    fitted_on: Literal["stream", "upload"]
    calibrated_at: datetime
    series_id: str | None = None  # of the stream's series
    instrument: str | None = None
    k_iqr: float | None = None  # of the ensemble that it was fitted for; None for ranges of older releases

    @cached_property
    def bounds(self) -> IntensityRange:
        """The range as the engine takes it."""
        return IntensityRange(np.array(self.low, np.float32), np.array(self.high, np.float32), "session")


class SessionRange:
    """The intensity range in force, and its calibration.

    The last request wins: `clear`, `begin` and `calibrate` cancel a calibration in progress.

    Parameters
    ----------
    store : LogKeeper or None
        Keeps the range over restarts.
    instrument : str
        The microscope that the range belongs to; services of several may share one store.
    max_fovs : callable
        Returns how many frames of the stream, for the ensemble in use, fit into the memory that may be used.
    """

    def __init__(
        self, store: LogKeeper | None, instrument: str, max_fovs: Callable[[], int] = lambda: sys.maxsize
    ) -> None:
        self._store = store
        self._max_fovs = max_fovs
        if len(instrument) > _MAX_NAME:
            instrument = hashlib.sha256(instrument.encode()).hexdigest()
        self._key = f"session_range {instrument}"
        self._lock = threading.Lock()
        self._storing = threading.Lock()  # held while a range is stored; never acquired while `_lock` is held
        self._calibrated: CalibratedRange | None = None
        self._stored = store is not None
        self._wanted = 0
        self._collected: list[Fov] = []
        self._requests = 0  # so far; a fit that is not of the last request is discarded
        self._fitting: int | None = None  # the request whose range is being computed
        self._problem: str | None = None

    def restore(self) -> None:
        """Put in force the range that an earlier process calibrated for this instrument."""
        if self._store is None:
            return
        try:
            stored = self._store.query(lambda log: log.get_value(self._key))
            calibrated = None if stored is None else CalibratedRange.model_validate(stored)
        except LogUnavailable as error:
            self._problem = f"it is not known whether an earlier session calibrated a range: {error}"
        except ValidationError:
            self._problem = (
                "the run log holds a range of an earlier session that cannot be read; calibrate again"
            )
        else:
            if calibrated is not None:
                with self._lock:
                    self._calibrated = calibrated
                _log.info("intensity range of an earlier session in force", **stored)
            return
        _log.warning("the model's intensity range is in force", reason=self._problem)

    def for_ensemble(self, active: ActiveEnsemble) -> IntensityRange:
        """Return the range that the next batch of an ensemble is scaled with."""
        calibrated = self._calibrated
        if calibrated is None or _misfit(calibrated, active) is not None:
            return active.ensemble.model_range
        return calibrated.bounds

    def begin(self, fovs: int) -> None:
        """Calibrate from the next ``fovs`` frames of the stream; frames collected so far are discarded.

        Raises
        ------
        Conflict
            If another calibration is being computed.
        PayloadTooLarge
            If so many frames do not fit into memory.
        """
        problem = _exceeds_memory(fovs, self._max_fovs())
        if problem is not None:
            raise PayloadTooLarge(problem)
        with self._lock:
            self._require_not_fitting()
            self._requests += 1
            self._wanted, self._collected, self._problem = fovs, [], None

    def observe(self, fov: Fov, active: ActiveEnsemble, require_in_use: RequireInUse) -> None:
        """Collect a live frame if a calibration needs it, and return at once.

        Parameters
        ----------
        active : ActiveEnsemble
            The ensemble in use; frames that were arranged for another one are skipped.
        """
        if not self._wanted:
            return
        with self._lock:
            if not self._wanted or self._fitting is not None or fov.spec != active.spec:
                return
            if self._collected and self._collected[0].spec != fov.spec:
                self._collected = []  # an ensemble of another specification took over
            if self._collected and self._collected[0].source.instrument != fov.source.instrument:
                return
            problem = None if self._collected else _exceeds_memory(self._wanted, self._max_fovs())
            if problem is not None:  # frames of an ensemble that took over may be larger
                self._wanted, self._problem = 0, f"the calibration was cancelled: {problem}"
                return
            self._collected.append(fov)
            if len(self._collected) < self._wanted:
                return
            fovs, self._collected, self._wanted = self._collected, [], 0
            request = self._fitting = self._requests
        # Fitting takes a tenth of a second or more, which the receiver's thread cannot spare.
        threading.Thread(
            target=self._fit_stream,
            args=(request, fovs, active, require_in_use),
            name="calibration",
            daemon=True,
        ).start()

    def calibrate(
        self, stack: npt.NDArray[Any], active: ActiveEnsemble, require_in_use: RequireInUse
    ) -> CalibratedRange:
        """Calibrate from an uploaded stack.

        Parameters
        ----------
        stack : array [N, C, H, W]
            Raw detector units, channels in the order of ``active.spec``.
        require_in_use : callable
            Called with the ensemble of the computed range, before the range is put in force.

        Raises
        ------
        Conflict
            If another calibration is being computed, or a later request cancelled this one.
        InvalidRequest
            If the stack does not determine a range.
        NotReady
            If an ensemble that the range does not fit took over meanwhile.
        """
        with self._lock:
            self._require_not_fitting()
            self._requests += 1
            request = self._fitting = self._requests
            self._wanted, self._collected = 0, []
        return self._fit(request, stack, active, None, require_in_use)

    def clear(self) -> None:
        """Return to the model's range; a calibration in progress is cancelled."""
        with self._lock:
            self._requests += 1
            self._wanted, self._collected = 0, []
            self._calibrated = self._problem = None
        self._save()

    def status(self, active: ActiveEnsemble) -> NormalizationStatus:
        """Return the range in force, its source, and the progress of a calibration."""
        bounds = self.for_ensemble(active)
        with self._lock:
            calibrated, problem = self._calibrated, self._problem
            if calibrated is not None and bounds.source == "model":
                problem = _misfit(calibrated, active)
            in_progress = self._wanted or (self._fitting is not None and self._fitting == self._requests)
            return NormalizationStatus(
                source=bounds.source,
                channels=active.spec.channels,
                low=tuple(float(value) for value in bounds.low),
                high=tuple(float(value) for value in bounds.high),
                session=calibrated.model_dump(mode="json") if calibrated else None,
                survives_restart=self._stored,
                calibrating=CalibrationProgress(fovs=len(self._collected), of=self._wanted)
                if in_progress
                else None,
                problem=problem,
            )

    def _require_not_fitting(self) -> None:
        if self._fitting is not None:
            raise Conflict("a calibration is being computed; try again in a second")

    def _fit_stream(
        self, request: int, fovs: list[Fov], active: ActiveEnsemble, require_in_use: RequireInUse
    ) -> None:
        source = fovs[0].source
        try:
            self._fit(request, _stacked(fovs), active, source, require_in_use)
        except Exception as error:
            with self._lock:
                cancelled = request != self._requests
                if self._fitting == request:
                    self._fitting = None
                if not cancelled:
                    self._problem = f"the calibration failed: {error}"
            if not cancelled:
                _log.exception("calibration failed")

    def _fit(
        self,
        request: int,
        stack: npt.NDArray[Any],
        active: ActiveEnsemble,
        source: Source | None,
        require_in_use: RequireInUse,
    ) -> CalibratedRange:
        k_iqr = active.ensemble.manifest.normalization.k_iqr
        try:
            low, high = fit_range(stack, k_iqr)
            for name, least, most in zip(active.spec.channels, low, high, strict=True):
                if most <= np.nextafter(least, np.float32(np.inf)):
                    raise InvalidRequest(
                        f"{name} is {least:g} in all pixels but outliers, which determines no range. "
                        "Calibrate on FOVs with cells, with the detector on"
                    )
            calibrated = CalibratedRange(
                channels=active.spec.channels,
                low=tuple(map(float, low)),
                high=tuple(map(float, high)),
                fovs=len(stack),
                fitted_on="upload" if source is None else "stream",
                calibrated_at=datetime.now(UTC),
                series_id=source.series_id if source else None,
                instrument=source.instrument if source else None,
                k_iqr=k_iqr,
            )
            try:
                require_in_use(active)
            except NotReady:
                raise NotReady(
                    "an ensemble of another specification or range took over while the calibration was "
                    "computed; calibrate again"
                ) from None
            with self._lock:
                if request != self._requests:
                    raise Conflict("the calibration was cancelled by a later request")
                self._calibrated, self._problem = calibrated, None
        finally:
            with self._lock:
                self._fitting = None
        self._save()
        _log.info("intensity range calibrated", **calibrated.model_dump(mode="json"))
        return calibrated

    def _save(self) -> None:
        """Store the range in force; of concurrent calls the last one stores what was requested last."""
        with self._storing:
            with self._lock:
                calibrated = self._calibrated
            value = calibrated.model_dump(mode="json") if calibrated else None
            self._stored = self._store is not None and self._store.try_write(
                lambda log: log.set_value(self._key, value)
            )


def _stacked(fovs: list[Fov]) -> npt.NDArray[Any]:
    """Return pixels as one stack, and empty the list, so that each FOV is freed once it is copied."""
    dtype = np.result_type(*(fov.pixels.dtype for fov in fovs))
    stack = np.empty((len(fovs), *fovs[0].pixels.shape), dtype)
    for n in reversed(range(len(fovs))):
        stack[n] = fovs.pop().pixels
    return stack


def _exceeds_memory(fovs: int, limit: int) -> str | None:
    """Return why so many frames cannot be collected, or None if they can."""
    if fovs <= limit:
        return None
    return (
        f"{fovs} frames of this size do not fit into the memory for requests, {limit} do; use fewer, or "
        "raise --request-memory-mib"
    )


def _misfit(calibrated: CalibratedRange, active: ActiveEnsemble) -> str | None:
    """Return why a calibrated range is not in force for an ensemble, or None if it is."""
    if calibrated.channels != active.spec.channels:
        return (
            f"the calibrated channels are {', '.join(calibrated.channels)}, the ensemble's "
            f"{', '.join(active.spec.channels)}: the model's range is in force"
        )
    k_iqr = active.ensemble.manifest.normalization.k_iqr
    if calibrated.k_iqr not in {None, k_iqr}:
        return (
            f"the calibration excludes pixels beyond {calibrated.k_iqr:g} interquartile ranges, the "
            f"ensemble {k_iqr:g}: the model's range is in force; calibrate again"
        )
    return None
