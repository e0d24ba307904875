"""The intensity range of the day: calibrated from the stream or from a stack, kept over restarts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import structlog

from senoscope.engine import IntensityRange
from senoscope.engine.intensity import fit_range
from senoscope.fov import Fov
from senoscope.loaded import Loaded
from senoscope_client._model import OpenModel
from senoscope_client.errors import Conflict, InvalidRequest, LogUnavailable

_log = structlog.get_logger(__name__)
_KEY = "session_range"


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
    series_id : str or None
        Of the stream's series.
    """

    channels: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    fovs: int
    fitted_on: Literal["stream", "upload"]
    calibrated_at: datetime
    series_id: str | None = None

    def as_range(self) -> IntensityRange:
        """In the engine's terms."""
        return IntensityRange(np.array(self.low, np.float32), np.array(self.high, np.float32), "session")


class SessionRange:
    """The intensity range in force, and its calibration.

    Parameters
    ----------
    keeper : Keeper or None
        Keeps the range over restarts.
    """

    def __init__(self, keeper: Keeper | None) -> None:
        self._keeper = keeper
        self._lock = threading.Lock()
        self._calibrated: CalibratedRange | None = None
        self._range: IntensityRange | None = None
        self._kept = keeper is not None
        self._wanted = 0
        self._collected: list[Fov] = []
        self._fitting = False
        self._problem: str | None = None

    def restore(self) -> None:
        """Take up the range that an earlier process calibrated."""
        if self._keeper is None:
            return
        try:
            kept = self._keeper.get_value(_KEY)
        except LogUnavailable as error:
            self._problem = f"whether an earlier session calibrated a range is not known: {error}"
            _log.warning("the model's intensity range is in force", reason=self._problem)
            return
        if kept is not None:
            self._set(CalibratedRange.model_validate(kept))
            _log.info("intensity range of an earlier session in force", **kept)

    def for_ensemble(self, loaded: Loaded) -> IntensityRange:
        """The range that this ensemble's next batch is scaled with."""
        with self._lock:
            if self._range is not None and self._calibrated is not None and _fits(self._calibrated, loaded):
                return self._range
        return loaded.ensemble.model_range

    def begin(self, fovs: int) -> None:
        """Calibrate from the next ``fovs`` frames of the stream; begins anew if it had begun."""
        with self._lock:
            self._require_not_fitting()
            self._wanted, self._collected, self._problem = fovs, [], None

    def observe(self, fov: Fov, loaded: Loaded) -> None:
        """Take notice of a live frame; returns at once."""
        if not self._wanted:
            return
        with self._lock:
            if not self._wanted or self._fitting:
                return
            if self._collected and self._collected[0].pixels.shape != fov.pixels.shape:
                self._collected = []  # another ensemble, of another input, took over
            self._collected.append(fov)
            if len(self._collected) < self._wanted:
                return
            fovs, self._collected, self._wanted, self._fitting = self._collected, [], 0, True
        # Fitting takes a tenth of a second or more: not in the thread that drains the stream.
        threading.Thread(
            target=self._fit_stream, args=(fovs, loaded), name="calibration", daemon=True
        ).start()

    def calibrate(self, stack: Sequence[npt.NDArray[Any]], loaded: Loaded) -> CalibratedRange:
        """Calibrate from an uploaded stack, now.

        Parameters
        ----------
        stack : sequence of arrays [C, H, W]
            Raw detector units.
        """
        with self._lock:
            self._require_not_fitting()
            self._wanted, self._collected, self._fitting = 0, [], True
        return self._fit(stack, loaded, "upload", None)

    def clear(self) -> None:
        """Back to the model's range; a calibration under way is given up."""
        with self._lock:
            self._wanted, self._collected = 0, []
            self._calibrated = self._range = self._problem = None
        self._keep(None)

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
                answer["problem"] = (
                    f"the calibrated channels are {', '.join(calibrated.channels)}, the ensemble's "
                    f"{', '.join(loaded.spec.channels)}: the model's range is in force"
                )
            if self._wanted or self._fitting:
                answer["calibrating"] = {"fovs": len(self._collected), "of": self._wanted}
        return answer

    def _require_not_fitting(self) -> None:
        if self._fitting:
            raise Conflict("a calibration is being computed; ask again in a second")

    def _fit_stream(self, fovs: list[Fov], loaded: Loaded) -> None:
        try:
            self._fit([fov.pixels for fov in fovs], loaded, "stream", fovs[0].source.series_id)
        except Exception as error:
            self._problem = f"the calibration failed: {error}"
            _log.exception("calibration failed")

    def _fit(
        self,
        stack: Sequence[npt.NDArray[Any]],
        loaded: Loaded,
        fitted_on: Literal["stream", "upload"],
        series_id: str | None,
    ) -> CalibratedRange:
        try:
            low, high = fit_range(np.stack(stack), loaded.ensemble.manifest.normalization.k_iqr)
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
                series_id=series_id,
            )
            self._set(calibrated)
        finally:
            self._fitting = False
        self._keep(calibrated)
        _log.info("intensity range calibrated", **calibrated.model_dump(mode="json"))
        return calibrated

    def _set(self, calibrated: CalibratedRange) -> None:
        with self._lock:
            self._calibrated, self._range, self._problem = calibrated, calibrated.as_range(), None

    def _keep(self, calibrated: CalibratedRange | None) -> None:
        value = calibrated.model_dump(mode="json") if calibrated else None
        self._kept = self._keeper is not None and self._keeper.set_value(_KEY, value)


def _fits(calibrated: CalibratedRange, loaded: Loaded) -> bool:
    return calibrated.channels == loaded.spec.channels
