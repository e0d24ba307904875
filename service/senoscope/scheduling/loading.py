"""The load of an ensemble, which can be abandoned; imports little, so that it can begin before all else."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from senoscope.engine import Ensemble
from senoscope.engine.cancellation import Cancellation
from senoscope.engine.devices import Device
from senoscope.engine.precision import PrecisionChoice
from senoscope.settings import Settings

_log = structlog.get_logger(__name__)
CANCEL_WAIT_S: Final = 10.0
"""Time that a cancelled load may take to end: for an operator of a graph, or the read of a file."""


class Loading:
    """The load of an ensemble on a separate daemon thread, which can be abandoned.

    Neither a graph that never ends nor a read from a disk that does not respond can be interrupted, and
    Python waits for other threads when it exits.

    Parameters
    ----------
    device, precision : optional
        Default: those of the settings.
    """

    def __init__(
        self,
        directory: Path,
        settings: Settings,
        cancellation: Cancellation,
        device: Device | None = None,
        precision: PrecisionChoice | None = None,
    ) -> None:
        self.directory = directory
        self.cancellation = cancellation
        self._settings = settings
        self._device = device or settings.device
        self._precision = precision or settings.precision
        self._loaded: Future[Ensemble] = Future()
        self.thread = threading.Thread(target=self._run, name="model loader", daemon=True)
        self.thread.start()

    def wait(self, within_s: float, too_late: Exception) -> Ensemble:
        """Return the ensemble, or raise why there is none: ``too_late`` after so many seconds."""
        limit_s = time.monotonic() + within_s
        while self.thread.is_alive() and self.cancellation.error is None and time.monotonic() < limit_s:
            self.thread.join(0.05)
        if self.thread.is_alive():
            self.cancellation.cancel(too_late)
            self.thread.join(CANCEL_WAIT_S)
        if self._loaded.cancel():  # abandoned
            raise self.cancellation.error or too_late
        ensemble = self._loaded.result()
        self._loaded = Future()  # releases the ensemble, which may be replaced while this object is kept
        if self.cancellation.error is not None:
            ensemble.close()
            raise self.cancellation.error
        return ensemble

    def _load(self) -> Ensemble:
        ensemble = Ensemble.load(
            self.directory,
            device=self._device,
            precision=self._precision,
            gate=self._settings.gate_limits,
            threads=self._settings.threads,
            largest_batch=self._settings.batch_size,
            cancellation=self.cancellation,
        )
        for warning in ensemble.warnings:
            _log.warning("this ensemble has a fault", model=ensemble.manifest.name, fault=warning)
        return ensemble

    def _run(self) -> None:
        try:
            ensemble = self._load()
        except BaseException as error:
            with suppress(InvalidStateError):  # abandoned
                self._loaded.set_exception(error)
            return
        try:
            self._loaded.set_result(ensemble)
        except InvalidStateError:  # abandoned
            ensemble.close()
