"""An engine that takes long, so that a service is slower than what is sent to it on any machine."""

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
    """Slows down the ensemble that a service uses, from now on.

    Parameters
    ----------
    server : ServerThread
        Ready; one that changes its ensemble afterwards gets a fast one.
    seconds : float
        For each field of view.

    Examples
    --------
    >>> with SlowEngine(server).held():  # doctest: +SKIP
    ...     ...  # what is sent now waits
    """

    def __init__(self, server: ServerThread, seconds: float = 0) -> None:
        self.seconds = seconds
        self._ensemble = server.service.active.ensemble
        self._fast_predict = self._ensemble.predict
        self._released = threading.Event()
        self._released.set()
        self._ensemble.predict = self._predict  # type: ignore[method-assign]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block, compute nothing more than what is being computed at its beginning."""
        self._released.clear()
        try:
            yield
        finally:
            self._released.set()

    def _predict(self, stack: npt.NDArray[Any], *rest: Any) -> list[Prediction]:
        self._released.wait()
        time.sleep(self.seconds * (len(stack) if stack.ndim == 4 else 1))
        return self._fast_predict(stack, *rest)
