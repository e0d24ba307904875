"""Subscribers to results and decisions over ZeroMQ, for software that controls the microscope."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

import zmq
from pydantic import TypeAdapter, ValidationError

from senoscope_client.errors import Unauthorized
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.result import Result
from senoscope_client.wire.sizes import MAX_RESULT_BYTES
from senoscope_client.zeromq.curve_keys import CurveClient, StrPath
from senoscope_client.zeromq.link import HandshakePatience, Link, LinkFault, receive_parts

# Short enough for Ctrl-C to take effect on Windows, where a wait inside ZeroMQ cannot be interrupted.
_SLICE_MS = 200
_HIGH_WATER_MARK = 1000
_log = logging.getLogger(__name__)
_FAULT_TEXTS: dict[LinkFault, str] = {
    "protocol": "received data that is not a ZeroMQ message, or a message that is too large or does not end",
    "no_handshake": "the ZeroMQ handshake was not completed; does another program use this endpoint?",
    "unknown_key": "this public key is not allowed; copy the .key file into the service's folder of allowed "
    "keys",
    "curve_mismatch": "only one side uses CURVE, or server_key is not the public key of the service, or the "
    "service uses another mechanism, such as PLAIN",
}
_T = TypeVar("_T")


class _Subscriber(Generic[_T]):
    """A subscriber to messages of one kind, whose topics begin with one of several texts."""

    _item_name: ClassVar[str]

    def __init__(
        self,
        endpoint: str,
        kind: Any,
        topics: Sequence[str],
        timeout_s: float | None,
        server_key: str | None,
        curve_keypair: StrPath | None,
    ) -> None:
        if curve_keypair is not None and server_key is None:
            raise ValueError("curve_keypair needs server_key, the public key of the service")
        self.timeout_s = timeout_s
        self.rejected = 0
        self.faults: Counter[LinkFault] = Counter()
        self._kind: TypeAdapter[_T] = TypeAdapter(kind)
        self._topics = tuple(topics)
        self._endpoint = endpoint
        self._patience = HandshakePatience()
        self._curve = None if server_key is None else CurveClient.load(server_key, curve_keypair)
        self._context = zmq.Context()
        self._open()

    def _open(self) -> None:
        """Connect a socket."""
        try:
            self._socket = self._context.socket(zmq.SUB)
            self._socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_MARK)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_RESULT_BYTES)
            for topic in self._topics:
                self._socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
            # Heartbeats detect a lost connection that was not closed, as when the machine is switched off.
            self._socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
            self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
            self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
            if self._curve is not None:
                self._curve.secure(self._socket)
            self._link = Link(self._socket, self._patience)
            self._socket.connect(self._endpoint)
        except ValueError:
            self._context.destroy(0)
            raise
        except zmq.ZMQError as error:
            self._context.destroy(0)
            raise OSError(f"{self._item_name}s cannot be received from {self._endpoint}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[_T]:
        """Iterate over messages until `close`.

        Raises
        ------
        TimeoutError
            If none is received within ``timeout_s``.
        """
        while not self._socket.closed:
            yield self.receive(self.timeout_s)

    def receive(self, timeout_s: float | None = None) -> _T:
        """Wait for the next message.

        Raises
        ------
        TimeoutError
            If none is received within ``timeout_s``.
        Unauthorized
            If the service refuses this subscriber; ZeroMQ does not reconnect.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        next_check_s = 0.0
        while True:
            now_s = time.monotonic()
            left_ms = _SLICE_MS if deadline_s is None else max(0, round((deadline_s - now_s) * 1000))
            broken = False
            readable = self._socket.poll(min(left_ms, _SLICE_MS))
            if readable:
                parts = receive_parts(self._socket)
                message = self._parse(parts)
                if message is not None:
                    return message
                if parts is None:
                    self._count_final_fault("protocol")
                    broken = True
            # Invalid messages may arrive without a pause: the connection is checked between them, too.
            if not broken and (not readable or now_s >= next_check_s):
                next_check_s = now_s + _SLICE_MS / 1000
                broken = self._handle_link_events()
            if broken:
                self._link.close()
                self._socket.close(0)
                self._open()
            if deadline_s is not None and time.monotonic() >= deadline_s:
                raise TimeoutError(f"no {self._item_name} for {timeout_s} s")

    def _parse(self, parts: list[zmq.Frame] | None) -> _T | None:
        """Parse a message; return None if it is not of this kind, and count it."""
        self._link.message_received()
        try:
            if parts is not None and len(parts) == 2:
                return self._kind.validate_json(parts[1].bytes)
        except ValidationError:
            pass
        self.rejected += 1
        return None

    def _handle_link_events(self) -> bool:
        """Count the faults of the connection; return whether the socket must be replaced.

        Raises
        ------
        Unauthorized
            If the service refuses this subscriber.
        """
        for event in self._link.events():
            fault = event.fault
            if fault is None:
                continue
            if fault in ("unknown_key", "curve_mismatch"):
                raise Unauthorized(
                    f"the service at {self._endpoint} refuses to send {self._item_name}s: "
                    f"{_FAULT_TEXTS[fault]}"
                )
            if event.final:
                self._count_final_fault(fault)
                return True
            self.faults[fault] += 1
        return False

    def _count_final_fault(self, fault: LinkFault) -> None:
        self.faults[fault] += 1
        _log.warning(
            "%ss from %s: %s; connecting again", self._item_name, self._endpoint, _FAULT_TEXTS[fault]
        )

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(0)


class ResultSubscriber(_Subscriber[Result]):
    """Receives results as the service publishes them; to be used by one thread.

    Parameters
    ----------
    endpoint : str
        Of the service's result publisher, such as ``tcp://127.0.0.1:5556``. The subscriber connects and
        reconnects by itself: it is no error if the service is not running yet.
    topic : str
        Receive only results whose topic begins with this text: ``result/stream/<instrument>``,
        ``result/upload`` or ``result/file``.
    timeout_s : float, optional
        How long to wait for each result; without limit, if left out.
    server_key : str, optional
        The service's public CURVE key, or the path of its file; needed if the service encrypts results.
    curve_keypair : path, optional
        Secret key file of this subscriber, whose public key the service must allow.

    Attributes
    ----------
    rejected : int
        Messages that were skipped because they are not valid results.
    faults : Counter
        Connections that ended, by reason; see `link.LinkFault`. Results that were published while there was
        no connection are not received; they are in the service's run log.

    Raises
    ------
    OSError
        If the endpoint is malformed, or a key file cannot be read.
    ValueError
        If a key file holds no key.
    """

    _item_name = "result"

    def __init__(
        self,
        endpoint: str,
        *,
        topic: str = "result/",
        timeout_s: float | None = None,
        server_key: str | None = None,
        curve_keypair: StrPath | None = None,
    ) -> None:
        super().__init__(endpoint, Result, [topic], timeout_s, server_key, curve_keypair)


class DecisionSubscriber(_Subscriber[Decision | Judged]):
    """Receives decisions as the service publishes them; otherwise like `ResultSubscriber`.

    Parameters
    ----------
    endpoint, timeout_s, server_key, curve_keypair
        See `ResultSubscriber`.
    instrument : str, optional
        Receive only decisions for this microscope.
    judged : bool
        Also receive a `Judged` for each field of view that all rules have judged.
    """

    _item_name = "decision"

    def __init__(
        self,
        endpoint: str,
        *,
        instrument: str | None = None,
        judged: bool = False,
        timeout_s: float | None = None,
        server_key: str | None = None,
        curve_keypair: StrPath | None = None,
    ) -> None:
        kinds = ["decision", "judged"] if judged else ["decision"]
        topics = [f"{kind}/{instrument}/" if instrument else f"{kind}/" for kind in kinds]
        super().__init__(endpoint, Decision | Judged, topics, timeout_s, server_key, curve_keypair)
