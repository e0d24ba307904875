"""Microscopes: one that scans continuously, whatever happens to the service, and one that a test controls."""

from __future__ import annotations

import threading
from uuid import UUID

import numpy as np

from senoscope_client import FramePublisher, Position
from support import miniature as mini
from support.servers import Server

COLUMNS, PITCH_UM = 5, 100.0
LEVELS = (100, 200, 300, 350, 400, 450, 500, 600, 900, 150)


class SteadyScan(threading.Thread):
    """A microscope that scans one series, from the first subscription until it is closed.

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
        assert self._publisher.wait_for_subscriber(60)
        self.uid = self._publisher.start_series("plate 1")
        while not self._ended.wait(self._pause_s):
            self.sent = 1 + self._publisher.publish(mini.bright(), Position(x=self.sent, y=0, z=0))

    def close(self) -> None:
        if self._ended.is_set():
            return
        self._ended.set()
        self.join()
        self._publisher.close("completed")


class Scan:
    """A series that a test controls; its microscope is closed with it, or stays on its stand."""

    def __init__(
        self,
        server: Server,
        name: str = "plate 1",
        planned: int | None = None,
        *,
        publisher: FramePublisher | None = None,
    ) -> None:
        self._server = server
        self._stays = publisher is not None
        self.publisher = _connected(server) if publisher is None else publisher
        self.uid = self.publisher.start_series(name, planned_frames=planned)
        self.sent = 0

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stays:
            self.publisher.end_series()
        else:
            self.publisher.close("completed")

    def go(self, levels: tuple[int, ...] = LEVELS) -> list[dict]:
        """Scan one FOV for each level, and return the logged results of the series, oldest first."""
        for level in levels:
            row, column = divmod(self.sent, COLUMNS)
            place = Position(x=column * PITCH_UM, y=row * PITCH_UM, z=0.0)
            noise = np.random.default_rng(self.sent).integers(0, 40, (3, 250, 300))
            self.publisher.publish((noise + level).astype(np.uint16), position_um=place)
            self.sent += 1
            self._server.wait(lambda told: told["live"]["waiting"] == 0)
        while len(results := logged(self._server, self.uid)) < self.sent:
            pass
        return results


class Stand:
    """The place of the one microscope that a service is connected to.

    The microscope stays there from series to series: a service takes seconds to notice that another one came.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._publisher: FramePublisher | None = None

    def scan(self, name: str = "plate 1", planned: int | None = None) -> Scan:
        """Begin a series."""
        self._publisher = self._publisher or _connected(self._server)
        return Scan(self._server, name, planned, publisher=self._publisher)

    def clear(self) -> None:
        """Disconnect the microscope."""
        if self._publisher is not None:
            self._publisher.close("completed")
        self._publisher = None


def _connected(server: Server) -> FramePublisher:
    publisher = FramePublisher(server.frames, "nlo-1", heartbeat_s=0.3)
    assert publisher.wait_for_subscriber(60)
    return publisher


def logged(server: Server, uid: object) -> list[dict]:
    return server.logged(series=str(uid))[::-1]
