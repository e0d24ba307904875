"""Results over ZeroMQ, for software that steers the microscope."""

from __future__ import annotations

import zmq

from senoscope.records import Record
from senoscope_client.result import CamMode, Source

# Results are small: a subscriber may fall this far behind before ZeroMQ drops what is meant for it.
_HIGH_WATER_MARK = 1000
_LINGER_MS = 500


def topic_of(source: Source) -> bytes:
    """``result/stream/<instrument>``, ``result/upload`` or ``result/file``."""
    parts = ["result", source.kind, *([source.instrument] if source.instrument else [])]
    return "/".join(parts).encode()


class ResultPublisher:
    """The sink that publishes each result as topic and JSON.

    Parameters
    ----------
    endpoint : str
        To bind, such as ``tcp://127.0.0.1:5556``; port ``*`` takes a free one.
    cam : {"none", "grid", "png"}
        How much of the Grad-CAM map goes along.

    Raises
    ------
    OSError
        If the endpoint cannot be bound.
    """

    def __init__(self, endpoint: str, cam: CamMode) -> None:
        self._cam = cam
        # A socket belongs to one thread at a time: made here, before the delivery thread starts, used
        # by it alone, and closed after it has ended.
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, _HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._socket.close(0)
            raise OSError(f"results cannot be published at {endpoint}: {error}") from error
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def tell(self, record: Record) -> None:
        """Publish a result; subscribers that are too slow lose it."""
        self._socket.send_multipart(
            [topic_of(record.result.source), record.json(self._cam)], flags=zmq.NOBLOCK
        )

    def close(self) -> None:
        """Send what is queued, then close."""
        self._socket.close()
