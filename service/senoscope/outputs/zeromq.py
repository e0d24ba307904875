"""Results over ZeroMQ, for software that controls the microscope."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import structlog
import zmq

from senoscope.access.connection_limit import max_connections
from senoscope.outputs.subscriptions import Subscriptions
from senoscope.results.delivery import DeliveryTimes, ResultSink
from senoscope.results.record import Record
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.result import CamMode, Result, Source
from senoscope_client.zeromq.curve_server import MAX_SUBSCRIPTION_BYTES, CurveAccess
from senoscope_client.zeromq.hang_up import HANDSHAKE_MS, MAX_CONNECTIONS
from senoscope_client.zeromq.socket_monitor import Connections

# Results that a slow subscriber may fall behind before ZeroMQ drops its messages.
_HIGH_WATER_MARK = 1000
_LINGER_MS = 500
_READ_INTERVAL_S = 0.1
# Subscriptions that ZeroMQ reads ahead from each connection.
_READ_AHEAD = 100
_log = structlog.get_logger(__name__)


def topic_of(source: Source) -> bytes:
    """Return ``result/stream/<instrument>``, ``result/upload`` or ``result/file``."""
    parts = ["result", source.kind, *([source.instrument] if source.instrument else [])]
    return "/".join(parts).encode()


def decision_topic(kind: str, result: Result) -> bytes:
    """Return ``decision/<instrument>/<series_uid>``, or ``judged/...``.

    The topic has the UUID of the series, not its name: a name may contain slashes, may not be unique, and may
    be the beginning of another name.
    """
    return f"{kind}/{result.source.instrument}/{result.source.series_uid}".encode()


class ResultPublisher(ResultSink):
    """The sink that publishes results and decisions, each as a topic and JSON.

    Parameters
    ----------
    endpoint : str
        To bind, such as ``tcp://127.0.0.1:5556``; port ``*`` takes a free one.
    cam : {"none", "grid", "png"}
        Form of the Grad-CAM maps in the results.
    curve_keypair, allowed_keys : Path, optional
        As in `senoscope_client.zeromq.curve_server.CurveAccess`: keys of subscribers. Without them, any may
        subscribe.

    Attributes
    ----------
    gate : CurveAccess or None
        The access control, if results are encrypted.

    Raises
    ------
    OSError
        If the endpoint cannot be bound, or a key file cannot be read.
    ValueError
        If a key file holds no key.
    """

    def __init__(
        self,
        endpoint: str,
        cam: CamMode,
        curve_keypair: Path | None = None,
        allowed_keys: Path | None = None,
    ) -> None:
        self._cam = cam
        # Access control applies to all sockets of a context.
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.gate: CurveAccess | None = None
        # A socket must be used by one thread at a time; results and decisions are sent from two.
        self._lock = threading.Lock()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        # All subscriptions and their ends are received, including those of topics with other subscribers.
        self._socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._socket.setsockopt(zmq.RCVHWM, _READ_AHEAD)
        self._socket.setsockopt(zmq.SNDHWM, _HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        limit = max_connections(MAX_CONNECTIONS, 0.25)
        self._connections: Connections
        with ExitStack() as undo:
            undo.callback(self._context.destroy, 0)
            if allowed_keys is not None and curve_keypair is not None:
                self._connections = self.gate = CurveAccess(self._socket, curve_keypair, allowed_keys, limit)
            else:
                self._connections = Connections(self._socket, limit)
            undo.callback(self._connections.close)
            try:
                self._socket.bind(endpoint)
            except zmq.ZMQError as error:
                raise OSError(
                    f"results cannot be published at {endpoint}: {error}; set another endpoint with --results"
                ) from error
            undo.pop_all()
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._subscriptions = Subscriptions(
            self._socket, self.endpoint, lambda: self._connections.descriptors
        )
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read, name="results subscriptions", daemon=True)
        self._reader.start()

    @property
    def subscribers(self) -> int:
        """How many subscribers are connected."""
        return self._connections.count

    @property
    def refused(self) -> dict[str, int]:
        """Subscribers that were refused, by reason."""
        return dict(self._connections.refused) | dict(self._subscriptions.refused)

    def on_result(self, record: Record, _: DeliveryTimes) -> None:
        """Publish a result; it is dropped for subscribers that are too slow."""
        self._send(topic_of(record.result.source), record.json(self._cam))

    def on_judged(self, result: Result, decisions: Sequence[Decision], judged: Judged) -> None:
        """Publish the decisions on a result, then a message that there are no more."""
        for decision in decisions:
            self._send(
                decision_topic("decision", result), decision.model_dump_json(exclude_none=True).encode()
            )
        self._send(decision_topic("judged", result), judged.model_dump_json().encode())

    def _send(self, topic: bytes, message: bytes) -> None:
        with self._lock:
            self._socket.send_multipart([topic, message], flags=zmq.NOBLOCK)

    def _read(self) -> None:
        """Limit subscriptions; ZeroMQ has applied them before they are read."""
        try:
            while not self._closing.wait(_READ_INTERVAL_S):
                with self._lock:
                    self._subscriptions.read()
                    self._subscriptions.close_unfinished()
        except Exception:
            _log.exception("subscriptions to results are no longer limited")

    def close(self) -> None:
        """Send the queued messages, then close."""
        self._closing.set()
        self._reader.join()
        self._connections.close()
        self._socket.close()
        self._context.term()
