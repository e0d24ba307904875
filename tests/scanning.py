"""A microscope that goes on scanning whatever becomes of the service."""

from __future__ import annotations

import threading
from uuid import UUID

import miniature as mini
from senoscope_client import FramePublisher, Position


class SteadyScan(threading.Thread):
    """Scans one series from when somebody listens until it is closed.

    Attributes
    ----------
    sent : int
        Frames so far.
    uid : UUID
        Of its series.
    """

    def __init__(self, endpoint: str, rate_hz: float) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.uid: UUID
        self._pause_s = 1 / rate_hz
        self._publisher = FramePublisher(endpoint, "nlo-1")
        self._ended = threading.Event()

    def run(self) -> None:
        assert self._publisher.wait_for_subscriber(10)
        self.uid = self._publisher.start_series("plate 1")
        while not self._ended.wait(self._pause_s):
            self.sent = 1 + self._publisher.publish(mini.bright(), Position(x=self.sent, y=0, z=0))

    def close(self) -> None:
        self._ended.set()
        self.join()
        self._publisher.close("completed")
