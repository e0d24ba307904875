"""Receiving results and decisions over ZeroMQ, for software that steers the microscope."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

import zmq
from pydantic import TypeAdapter, ValidationError

from senoscope_client.errors import Unauthorized
from senoscope_client.models.decision import Decision, Judged
from senoscope_client.models.result import Result
from senoscope_client.wire.sizes import MAX_RESULT_BYTES
from senoscope_client.zeromq.curve_keys import CurveClient, StrPath
from senoscope_client.zeromq.link import Link, LinkFault, first_patience_s, next_patience_s, receive_parts

# Short enough for Ctrl-C to be noticed on Windows, where a wait inside ZeroMQ cannot be interrupted.
_SLICE_MS = 200
_HIGH_WATER_MARK = 1000
_log = logging.getLogger(__name__)
_BROKEN: dict[LinkFault, str] = {
    "protocol": "the connection brought what is no ZeroMQ message, or one that is too large or does not end",
    "no_handshake": "ZeroMQ's handshake was not completed; does another program listen there?",
}
_T = TypeVar("_T")


class _Subscriber(Generic[_T]):
    """Messages of a kind whose topics begin in one of several ways; see `ResultSubscriber`."""

    _what: ClassVar[str]

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
        self._patience_s = first_patience_s()
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
            # A service whose machine went away without a word is noticed, and connected to again.
            self._socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
            self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
            self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
            if self._curve is not None:
                self._curve.secure(self._socket)
            self._link = Link(self._socket, self._patience_s)
            self._socket.connect(self._endpoint)
        except ValueError:
            self._context.destroy(0)
            raise
        except zmq.ZMQError as error:
            self._context.destroy(0)
            raise OSError(f"{self._what}s cannot be received from {self._endpoint}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[_T]:
        """Messages until `close`.

        Raises
        ------
        TimeoutError
            If none came for ``timeout_s``.
        """
        while not self._socket.closed:
            yield self.receive(self.timeout_s)

    def receive(self, timeout_s: float | None = None) -> _T:
        """The next message.

        Raises
        ------
        TimeoutError
            If none came for ``timeout_s``.
        Unauthorized
            If the service refuses this subscriber; ZeroMQ does not try again.
        """
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        watch_at = 0.0
        while True:
            now = time.monotonic()
            left_ms = _SLICE_MS if give_up is None else max(0, round((give_up - now) * 1000))
            broken = False
            waits = self._socket.poll(min(left_ms, _SLICE_MS))
            if waits:
                parts = receive_parts(self._socket)
                message = self._read(parts)
                if message is not None:
                    return message
                if parts is None:
                    self._note_fault("protocol")
                    broken = True
            if not broken and (not waits or now >= watch_at):  # bad messages may come without a pause
                watch_at = now + _SLICE_MS / 1000
                broken = self._note_events()
            if broken:
                self._link.close()
                self._socket.close(0)
                self._open()
            if give_up is not None and time.monotonic() >= give_up:
                raise TimeoutError(f"no {self._what} for {timeout_s} s")

    def _read(self, parts: list[zmq.Frame] | None) -> _T | None:
        """A message; None if it is none of this kind, which is counted."""
        self._link.heard()
        self._patience_s = first_patience_s()
        try:
            if parts is not None and len(parts) == 2:
                return self._kind.validate_json(parts[1].bytes)
        except ValidationError:
            pass
        self.rejected += 1
        return None

    def _note_events(self) -> bool:
        """Count what happened to the connection; whether a fresh socket has to connect.

        Raises
        ------
        Unauthorized
            If the service refuses this subscriber.
        """
        for event in self._link.events():
            fault = event.fault
            if fault is None:
                self._patience_s = first_patience_s()
                continue
            if fault in ("unknown_key", "curve_mismatch"):
                raise self._refusal(fault)
            if not event.final:
                self.faults[fault] += 1
            else:
                self._note_fault(fault)
                if fault == "no_handshake":
                    self._patience_s = next_patience_s(self._patience_s)
                return True
        return False

    def _note_fault(self, fault: LinkFault) -> None:
        self.faults[fault] += 1
        _log.warning("%ss from %s: %s; connecting again", self._what, self._endpoint, _BROKEN[fault])

    def _refusal(self, fault: LinkFault) -> Unauthorized:
        why = (
            "it speaks CURVE and this subscriber does not, or the other way round, or with another key: see "
            "server_key; or it has another mechanism, such as PLAIN"
        )
        if fault == "unknown_key":
            why = "it does not know this public key: put the .key file into its folder of allowed keys"
        return Unauthorized(f"the service at {self._endpoint} refuses {self._what}s: {why}")

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(0)


class ResultSubscriber(_Subscriber[Result]):
    """Results as the service publishes them; for one thread.

    Parameters
    ----------
    endpoint : str
        Of the service's result publisher, such as ``tcp://127.0.0.1:5556``. ZeroMQ connects, and connects
        again, by itself: a service that is not there yet is no error.
    topic : str
        Only results whose topic begins with this: ``result/stream/<instrument>``, ``result/upload`` or
        ``result/file``.
    timeout_s : float, optional
        How long to wait for each result; without end, if left out.
    server_key : str, optional
        The service's public CURVE key, or its file; needed where it publishes encrypted.
    curve_keypair : path, optional
        Secret key file of this subscriber, whose public key the service must allow.

    Attributes
    ----------
    rejected : int
        Messages that were no result and were skipped.
    faults : Counter
        Connections that ended, by reason; see `link.LinkFault`. Results that were published
        meanwhile did not come; the service's run log has them.

    Raises
    ------
    OSError
        If the endpoint is malformed, or a key file cannot be read.
    ValueError
        If a key file holds no key.
    """

    _what = "result"

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
    """Decisions as the service publishes them; otherwise as `ResultSubscriber`.

    Parameters
    ----------
    endpoint, timeout_s, server_key, curve_keypair
        As of `ResultSubscriber`.
    instrument : str, optional
        Only decisions for this microscope.
    judged : bool
        Also tell, by a `Judged`, of each field of view that all rules have judged.
    """

    _what = "decision"

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
