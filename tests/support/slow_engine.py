"""A slow engine, so that a service is overloaded on any machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from senoscope.engine import Prediction
from support.servers import ServerThread


class SlowEngine:
    """A slow replacement for the computation of a service's ensemble.

    Parameters
    ----------
    server : ServerThread
        Ready; one that changes its ensemble afterwards gets a fast one.
    seconds : float
        For each field of view.
    batch_seconds : float
        For each batch, whatever its size.

    Examples
    --------
    >>> with SlowEngine(server).held():  # doctest: +SKIP
    ...     ...  # frames that are sent now wait
    """

    def __init__(self, server: ServerThread, seconds: float = 0, batch_seconds: float = 0) -> None:
        self.seconds = seconds
        self.batch_seconds = batch_seconds
        self._ensemble = server.service.active.ensemble
        self._fast_predict = self._ensemble.predict
        self._released = threading.Event()
        self._released.set()
        self._ensemble.predict = self._predict  # type: ignore[method-assign]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Compute nothing within the block, except for a computation that has begun."""
        self._released.clear()
        try:
            yield
        finally:
            self._released.set()

    def _predict(self, stack: npt.NDArray[Any], *rest: Any) -> list[Prediction]:
        self._released.wait()
        time.sleep(self.batch_seconds + self.seconds * (len(stack) if stack.ndim == 4 else 1))
        return self._fast_predict(stack, *rest)
