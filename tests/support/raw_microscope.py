"""A frame publisher that can send invalid messages, for tests with a real server."""

from __future__ import annotations

import uuid

import numpy as np
import zmq

from senoscope_client.wire.messages import ImageHeader, Position, Timestamp, encode
from support import miniature as mini

NAMES = ("SRS", "TPEF", "Transmission")


class Microscope:
    """A publisher of arbitrary parts on an XPUB socket; constructed once the service has subscribed."""

    def __init__(self, endpoint: str) -> None:
        self.uid = uuid.uuid4()
        self._socket = zmq.Context.instance().socket(zmq.XPUB)
        self._socket.bind(endpoint)
        assert self._socket.poll(60_000), "the service did not subscribe"
        self._socket.recv()

    def common(self) -> dict:
        return {"instrument": "nlo-1", "series_id": "plate 3", "series_uid": self.uid}

    def header(self, frame: int, pixels: np.ndarray, **changes) -> ImageHeader:
        fields = {
            **self.common(),
            "frame": frame,
            "shape": pixels.shape,
            "dtype": pixels.dtype.name,
            "channels": NAMES,
            "timestamp": Timestamp.from_ns(1_700_000_000_123_456_789),
            "pixel_size_um": 0.35,
            "position_um": Position(x=100.0 * frame, y=-5.0, z=0.25),
        }
        return ImageHeader(**(fields | changes))

    def frame(self, frame: int, pixels: np.ndarray | None = None, **changes) -> list:
        pixels = mini.bright() if pixels is None else pixels
        return encode(self.header(frame, pixels, **changes), pixels)

    def send(self, *messages: list) -> None:
        for parts in messages:
            self._socket.send_multipart(parts)

    def close(self) -> None:
        self._socket.close(500)
