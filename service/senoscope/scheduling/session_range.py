"""The intensity range of the day: calibrated from the stream or from a stack, kept over restarts."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import structlog
from pydantic import ValidationError

from senoscope.engine import IntensityRange
from senoscope.engine.intensity import fit_range
from senoscope.fov import Fov
from senoscope.scheduling.active_ensemble import Loaded
from senoscope_client.errors import Conflict, InvalidRequest, LogUnavailable, NotReady, PayloadTooLarge
from senoscope_client.models.base import OpenModel

_log = structlog.get_logger(__name__)
# The run log's keys have 128 characters at most.
_LONGEST_NAME = 96
RequireInUse = Callable[[Loaded], None]
"""Raises NotReady unless a range that was fitted for that ensemble fits the one in use."""


class Keeper(Protocol):
    """Where small states outlive the process; the run log is one."""

    def get_value(self, key: str) -> Any:
        """What was kept under that name; None if nothing was. Raises LogUnavailable."""
        ...

    def set_value(self, key: str, value: Any) -> bool:
        """Keep something, or forget it; False if that is not possible now."""
        ...


class CalibratedRange(OpenModel):
    """A calibrated intensity range.

    Attributes
    ----------
    channels : tuple of str
    low, high : tuple of float
        Per channel, in raw detector units.
    fovs : int
        How many it was fitted on.
    fitted_on : {"stream", "upload"}
    calibrated_at : datetime
    series_id, instrument : str or None
        Of the stream's series.
    k_iqr : float or None
        Of the ensemble that it was fitted for; None for ranges that older releases kept.
    """

    channels: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    fovs: int
    fitted_on: Literal["stream", "upload"]
    calibrated_at: datetime
    series_id: str | None = None
    instrument: str | None = None
    k_iqr: float | None = None

    def as_range(self) -> IntensityRange:
        """In the engine's terms."""
        return IntensityRange(np.array(self.low, np.float32), np.array(self.high, np.float32), "session")


class SessionRange:
    """The intensity range in force, and its calibration.

    What is asked for last holds: `clear`, `begin` and `calibrate` give up whatever was under way before.

    Parameters
    ----------
    keeper : Keeper or None
        Keeps the range over restarts.
    instrument : str
        The microscope that the range belongs to; services of several may share one keeper.
    most_fovs : callable
        How many frames of the stream, for the ensemble in use, fit into the memory that may be taken.
    """

    def __init__(
        self, keeper: Keeper | None, instrument: str, most_fovs: Callable[[], int] = lambda: sys.maxsize
    ) -> None:
        self._keeper = keeper
        self._most_fovs = most_fovs
        self._key = _key_of(instrument)
        self._lock = threading.Lock()
        self._keeping = threading.Lock()  # held while a range is kept; never taken with `_lock` held
        self._calibrated: CalibratedRange | None = None
        self._range: IntensityRange | None = None
        self._kept = keeper is not None
        self._wanted = 0
        self._collected: list[Fov] = []
        self._orders = 0  # what was asked for so far; a fit that is not of the last order is given up
        self._fitting: int | None = None  # the order whose range is being computed
        self._problem: str | None = None

    def restore(self) -> None:
        """Take up the range that an earlier process calibrated for this instrument."""
        if self._keeper is None:
            return
        try:
            kept = self._keeper.get_value(self._key)
            calibrated = None if kept is None else CalibratedRange.model_validate(kept)
        except LogUnavailable as error:
            self._problem = f"whether an earlier session calibrated a range is not known: {error}"
        except ValidationError:
            self._problem = (
                "the run log holds a range of an earlier session that cannot be read; calibrate anew"
            )
        else:
            if calibrated is not None:
                with self._lock:
                    self._put_in_force(calibrated)
                _log.info("intensity range of an earlier session in force", **kept)
            return
        _log.warning("the model's intensity range is in force", reason=self._problem)

    def for_ensemble(self, loaded: Loaded) -> IntensityRange:
        """The range that this ensemble's next batch is scaled with."""
        with self._lock:
            if self._range is not None and self._calibrated is not None and _fits(self._calibrated, loaded):
                return self._range
        return loaded.ensemble.model_range

    def begin(self, fovs: int) -> None:
        """Calibrate from the next ``fovs`` frames of the stream; begins anew if it had begun.

        Raises
        ------
        Conflict
            If another calibration is being computed.
        PayloadTooLarge
            If so many do not fit into memory.
        """
        problem = _too_many(fovs, self._most_fovs())
        if problem is not None:
            raise PayloadTooLarge(problem)
        with self._lock:
            self._require_not_fitting()
            self._orders += 1
            self._wanted, self._collected, self._problem = fovs, [], None

    def observe(self, fov: Fov, loaded: Loaded, require_in_use: RequireInUse) -> None:
        """Take notice of a live frame; returns at once.

        Parameters
        ----------
        loaded : Loaded
            The ensemble in use; frames that were arranged for another one are left out.
        """
        if not self._wanted:
            return
        with self._lock:
            if not self._wanted or self._fitting is not None or fov.spec != loaded.spec:
                return
            if self._collected and self._collected[0].spec != fov.spec:
                self._collected = []  # another ensemble, of another input, took over
            if self._collected and self._collected[0].source.instrument != fov.source.instrument:
                return
            problem = None if self._collected else _too_many(self._wanted, self._most_fovs())
            if problem is not None:  # those of an ensemble that took over are larger
                self._wanted, self._problem = 0, f"the calibration was given up: {problem}"
                return
            self._collected.append(fov)
            if len(self._collected) < self._wanted:
                return
            fovs, self._collected, self._wanted = self._collected, [], 0
            order = self._fitting = self._orders
        # Fitting takes a tenth of a second or more: not in the thread that drains the stream.
        threading.Thread(
            target=self._fit_stream,
            args=(order, fovs, loaded, require_in_use),
            name="calibration",
            daemon=True,
        ).start()

    def calibrate(
        self, stack: npt.NDArray[Any], loaded: Loaded, require_in_use: RequireInUse
    ) -> CalibratedRange:
        """Calibrate from an uploaded stack, now.

        Parameters
        ----------
        stack : array [N, C, H, W]
            Raw detector units, channels in the order of ``loaded.spec``.
        require_in_use : callable
            Called when the range was computed, before it is put in force.

        Raises
        ------
        Conflict
            If another calibration is being computed, or this one was given up for a later order.
        InvalidRequest
            If the stack determines no range.
        NotReady
            If an ensemble that the range does not fit took over meanwhile.
        """
        with self._lock:
            self._require_not_fitting()
            self._orders += 1
            order = self._fitting = self._orders
            self._wanted, self._collected = 0, []
        return self._fit(order, stack, loaded, "upload", None, require_in_use)

    def clear(self) -> None:
        """Back to the model's range; a calibration under way is given up."""
        with self._lock:
            self._orders += 1
            self._wanted, self._collected = 0, []
            self._calibrated = self._range = self._problem = None
        self._keep()

    def describe(self, loaded: Loaded) -> dict[str, Any]:
        """The range in force, where it comes from, and how far a calibration is."""
        bounds = self.for_ensemble(loaded)
        with self._lock:
            calibrated = self._calibrated
            answer: dict[str, Any] = {
                "source": bounds.source,
                "channels": list(loaded.spec.channels),
                "low": [float(value) for value in bounds.low],
                "high": [float(value) for value in bounds.high],
                "session": calibrated.model_dump(mode="json") if calibrated else None,
                "survives_restart": self._kept,
                "calibrating": None,
                "problem": self._problem,
            }
            if calibrated is not None and bounds.source == "model":
                answer["problem"] = _misfit(calibrated, loaded)
            if self._wanted or (self._fitting is not None and self._fitting == self._orders):
                answer["calibrating"] = {"fovs": len(self._collected), "of": self._wanted}
        return answer

    def _require_not_fitting(self) -> None:
        if self._fitting is not None:
            raise Conflict("a calibration is being computed; ask again in a second")

    def _fit_stream(self, order: int, fovs: list[Fov], loaded: Loaded, require_in_use: RequireInUse) -> None:
        try:
            first = fovs[0]
            self._fit(order, _stacked(fovs), loaded, "stream", first, require_in_use)
        except Exception as error:
            with self._lock:
                given_up = order != self._orders
                if self._fitting == order:
                    self._fitting = None
                if not given_up:
                    self._problem = f"the calibration failed: {error}"
            if not given_up:
                _log.exception("calibration failed")

    def _fit(
        self,
        order: int,
        stack: npt.NDArray[Any],
        loaded: Loaded,
        fitted_on: Literal["stream", "upload"],
        first: Fov | None,
        require_in_use: RequireInUse,
    ) -> CalibratedRange:
        k_iqr = loaded.ensemble.manifest.normalization.k_iqr
        try:
            low, high = fit_range(stack, k_iqr)
            for name, least, most in zip(loaded.spec.channels, low, high, strict=True):
                if most <= np.nextafter(least, np.float32(np.inf)):
                    raise InvalidRequest(
                        f"{name} is {least:g} wherever it is no outlier: such FOVs tell of no range. "
                        "Calibrate on FOVs with cells, with the detector on"
                    )
            calibrated = CalibratedRange(
                channels=loaded.spec.channels,
                low=tuple(map(float, low)),
                high=tuple(map(float, high)),
                fovs=len(stack),
                fitted_on=fitted_on,
                calibrated_at=datetime.now(UTC),
                series_id=first.source.series_id if first else None,
                instrument=first.source.instrument if first else None,
                k_iqr=k_iqr,
            )
            try:
                require_in_use(loaded)
            except NotReady:
                raise NotReady(
                    "an ensemble of another input or of another range took over while the calibration was "
                    "computed; calibrate again"
                ) from None
            with self._lock:
                if order != self._orders:
                    raise Conflict(
                        "the calibration was given up: the range was cleared while it was computed"
                    )
                self._put_in_force(calibrated)
        finally:
            with self._lock:
                self._fitting = None
        self._keep()
        _log.info("intensity range calibrated", **calibrated.model_dump(mode="json"))
        return calibrated

    def _put_in_force(self, calibrated: CalibratedRange) -> None:
        self._calibrated, self._range, self._problem = calibrated, calibrated.as_range(), None

    def _keep(self) -> None:
        """Keep what is in force now: whoever keeps last, keeps what was ordered last."""
        with self._keeping:
            with self._lock:
                calibrated = self._calibrated
            value = calibrated.model_dump(mode="json") if calibrated else None
            self._kept = self._keeper is not None and self._keeper.set_value(self._key, value)


def _stacked(fovs: list[Fov]) -> npt.NDArray[Any]:
    """Pixels as one stack; takes the fields of view out of the list, so that each is freed once copied."""
    dtype = np.result_type(*(fov.pixels.dtype for fov in fovs))
    stack = np.empty((len(fovs), *fovs[0].pixels.shape), dtype)
    for n in reversed(range(len(fovs))):
        stack[n] = fovs.pop().pixels
    return stack


def _too_many(fovs: int, most: int) -> str | None:
    """Why so many frames cannot be collected, or None if they can."""
    if fovs <= most:
        return None
    return (
        f"{fovs} frames of this size do not fit into the memory for requests, {most} do; ask for fewer, or "
        "give the service more (--request-memory-mib)"
    )


def _key_of(instrument: str) -> str:
    if len(instrument) > _LONGEST_NAME:
        instrument = hashlib.sha256(instrument.encode()).hexdigest()
    return f"session_range {instrument}"


def _fits(calibrated: CalibratedRange, loaded: Loaded) -> bool:
    return _misfit(calibrated, loaded) is None


def _misfit(calibrated: CalibratedRange, loaded: Loaded) -> str | None:
    """Why a calibrated range is not in force for an ensemble, or None if it is."""
    if calibrated.channels != loaded.spec.channels:
        return (
            f"the calibrated channels are {', '.join(calibrated.channels)}, the ensemble's "
            f"{', '.join(loaded.spec.channels)}: the model's range is in force"
        )
    k_iqr = loaded.ensemble.manifest.normalization.k_iqr
    if calibrated.k_iqr not in {None, k_iqr}:
        return (
            f"the calibration leaves out what is beyond {calibrated.k_iqr:g} interquartile ranges, the "
            f"ensemble {k_iqr:g}: the model's range is in force; calibrate again"
        )
    return None
