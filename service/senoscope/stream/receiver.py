"""Reception of the acquisition PC's frame stream: decode, check, count, and pass frames on at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from socket import socketpair
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import structlog
import zmq

from senoscope.fov import Fov
from senoscope.logs import about_source
from senoscope.results.lost_frames import LostFrames
from senoscope.runlog.entries import SeriesSnapshot
from senoscope.stream.series import Series, SeriesTracker
from senoscope.watched_thread import WatchedThread
from senoscope_client.images.reader import FovSpec
from senoscope_client.models.result import Source
from senoscope_client.models.status import ReceiverStatus
from senoscope_client.rate_limiter import RateLimiter
from senoscope_client.wire.messages import (
    MAX_PART_BYTES,
    MAX_PIXEL_BYTES,
    EndHeader,
    HeartbeatHeader,
    ImageHeader,
    StartHeader,
    WireError,
    decode,
)
from senoscope_client.zeromq.curve_keys import CurveClient
from senoscope_client.zeromq.link import (
    MAX_PARTS,
    HandshakePatience,
    Link,
    LinkFault,
    receive_parts,
)

_log = structlog.get_logger(__name__)
_TOPIC = b"fov/"
_POLL_MS = 200
_LOG_INTERVAL_S = 1.0
_MAX_LOG_INTERVAL_S = 600.0
_REFUSALS: Final = frozenset({"unknown_key", "curve_mismatch"})
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_FAILED_HANDSHAKES_TOLERATED: Final = 3
# Counted as faults; refusals are counted separately.
LINK_FAULTS: Final[tuple[LinkFault, ...]] = ("lost", "no_handshake", "protocol")
_REASONS: Final[dict[LinkFault, str]] = {
    "lost": "the connection was lost",
    "no_handshake": "connections are accepted, but the ZeroMQ handshake is not completed: check whether "
    "another program, or a tunnel without a target, listens there",
    "protocol": f"a part of over {MAX_PIXEL_BYTES // 1024**2} MiB, a message of over {MAX_PARTS} parts or "
    "without an end, or bytes that are not a ZeroMQ message were received, or the peer refuses or is not a "
    "publisher; reconnecting",
    "unknown_key": "it does not allow this public key",
    "curve_mismatch": "only one side uses CURVE, or the keys do not match, or the peer uses another "
    "mechanism, such as PLAIN",
}
# Reasons to reject messages that are in the format.
UNFIT = ("series_of_another_instrument", "wrong_frame_size", "wrong_channels", "non_finite_pixels")
_MAX_NAME: Final = 80  # characters of a name in a message
# Frames that may wait inside ZeroMQ while this thread is delayed; the queue that drops the oldest is the live
# lane.
_HIGH_WATER_MARK = 64


class Receiver:
    """The receiver of the frame stream: a `FrameSource` whose thread owns the SUB socket.

    Parameters
    ----------
    endpoint : str
        Of the frame publisher; ZeroMQ connects and reconnects automatically.
    spec : callable
        Returns what the ensemble in use takes; frames of other sizes or channels are refused and counted.
    on_frame : callable
        Called with each frame that can be classified; must not block.
    curve : CurveClient, optional
        Keys, where the frames are encrypted.
    lost : LostFrames, optional
        Records which frames get no result.
    earlier : iterable of Series
        Those that an earlier process counted, and that may continue.
    """

    part: Final = "receiver"
    saves_series: Final = False

    def __init__(
        self,
        endpoint: str,
        spec: Callable[[], FovSpec],
        on_frame: Callable[[Fov], None],
        curve: CurveClient | None = None,
        earlier: Iterable[Series] = (),
        lost: LostFrames | None = None,
    ) -> None:
        self._lost = lost or LostFrames()
        self.endpoint = endpoint
        self._curve = curve
        self._refused = 0
        self._faults: Counter[LinkFault] = Counter(dict.fromkeys(LINK_FAULTS, 0))
        self._fault: LinkFault | None = None
        self._failed_handshakes = 0  # handshakes that failed since the last that succeeded
        self._patience = HandshakePatience()
        self._spec = spec
        self._on_frame = on_frame
        self._lock = threading.Lock()
        self._tracker = SeriesTracker(earlier)
        self._messages: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._last_rejection: str | None = None
        self._last_message_s: float | None = None
        self._connected = False
        self._connections = 0
        self._log_lines = RateLimiter(_LOG_INTERVAL_S, _MAX_LOG_INTERVAL_S)
        # Closing the first wakes the thread, which polls the second.
        self._waker, self._woken = socketpair()
        self.thread = WatchedThread("receiver", self._run, restarts=True)

    def close(self) -> None:
        """Stop the thread and close the socket."""
        self.thread.request_stop()
        self._waker.close()
        self.thread.stop()

    def status(self) -> ReceiverStatus:
        """Return state and counters."""
        problem = self.problem
        with self._lock:
            silent_s = None if self._last_message_s is None else time.monotonic() - self._last_message_s
            return ReceiverStatus(
                endpoint=self.endpoint,
                connected=self._connected,
                connections=self._connections,
                refused=self._refused,
                faults=dict(self._faults),
                problem=problem,
                silent_s=None if silent_s is None else round(silent_s, 3),
                messages=dict(self._messages),
                rejected=dict(self._rejected),
                last_rejection=self._last_rejection,
                series=self._tracker.statuses(),
            )

    def snapshots(self) -> list[SeriesSnapshot]:
        """Return snapshots of the known series, newest first, with their lost frames."""
        with self._lock:
            snapshots = self._tracker.snapshots()
        return [one.model_copy(update={"lost": self._lost.describe(one.series_uid)}) for one in snapshots]

    def _run(self, stop: threading.Event) -> None:
        pause_s = _FIRST_PAUSE_S
        while not stop.is_set():
            received, fault = self._receive_until_fault(stop)
            if fault in _REFUSALS:
                pause_s = _LONGEST_PAUSE_S
            stop.wait(pause_s)
            pause_s = _FIRST_PAUSE_S if received else min(2 * pause_s, _LONGEST_PAUSE_S)
        self._woken.close()

    def _receive_until_fault(self, stop: threading.Event) -> tuple[bool, LinkFault | None]:
        """Receive until the thread is to stop, or until the socket cannot reconnect and must be replaced.

        Returns
        -------
        received : bool
            Whether a message was received.
        fault : LinkFault or None
            Why the socket must be replaced.
        """
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_MARK)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_PART_BYTES)
        socket.setsockopt(zmq.SUBSCRIBE, _TOPIC)
        # Detects a publisher whose machine disappeared, so that the socket reconnects.
        socket.setsockopt(zmq.HEARTBEAT_IVL, 2000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 6000)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        if self._curve is not None:
            self._curve.secure(socket)
        link = Link(socket, self._patience)
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(link.monitor, zmq.POLLIN)
        poller.register(self._woken, zmq.POLLIN)
        received = False
        events_due_s = 0.0
        try:
            socket.connect(self.endpoint)
            while not stop.is_set():
                ready = dict(poller.poll(_POLL_MS))
                if socket in ready:
                    if not self._receive_message(socket):
                        self._note_fault("protocol")
                        return received, "protocol"
                    received = True
                    link.message_received()
                    # The thread that computes the frame waits for this one to release the interpreter.
                    if link.monitor not in ready and time.monotonic() < events_due_s:
                        continue
                fault = self._note_events(link)
                events_due_s = time.monotonic() + _POLL_MS / 1000
                if fault is not None:
                    for _ in range(2 * _HIGH_WATER_MARK):  # messages received before the fault
                        if not socket.poll(0) or not self._receive_message(socket):
                            break
                    return received, fault
            return received, None
        finally:
            link.close()
            socket.close(0)

    def _receive_message(self, socket: zmq.Socket[bytes]) -> bool:
        """Handle the message that waits; False if it has so many parts that the socket must be closed."""
        parts = receive_parts(socket)
        if parts is None:
            with self._lock:
                self._reject("part_count", f"a message has more than {MAX_PARTS} parts")
            return False
        self._handle([part.buffer for part in parts])
        return True

    def _note_events(self, link: Link) -> LinkFault | None:
        """Count events of the connection, and return the fault after which a new socket is needed."""
        for event in link.events():
            with self._lock:
                self._connected = link.connected
            if event.fault is None:
                with self._lock:
                    self._connections += 1
                    self._failed_handshakes = 0
                    if self._fault != "protocol":  # which ends with a valid message
                        self._fault = None
                _log.info("stream connected", endpoint=self.endpoint)
            else:
                self._note_fault(event.fault)
                if event.final:
                    return event.fault
        return None

    def _note_fault(self, fault: LinkFault) -> None:
        with self._lock:
            self._connected = False
            if fault == "no_handshake":
                self._failed_handshakes += 1
            if fault == "lost":
                self._faults[fault] += 1
            elif fault in _REFUSALS:
                self._refused += 1
                self._fault = fault
            else:
                self._faults[fault] += 1
                # A single one may be a publisher that was ending.
                if fault != "no_handshake" or self._failed_handshakes >= _FAILED_HANDSHAKES_TOLERATED:
                    self._fault = fault
            count = self._refused if fault in _REFUSALS else self._faults[fault]
            suppressed = self._log_lines.suppressed_since_last(fault)
        if fault == "lost":
            _log.info("stream disconnected", endpoint=self.endpoint)
        elif suppressed is not None:
            event = "the frame publisher refuses this service" if fault in _REFUSALS else "stream interrupted"
            _log.warning(event, endpoint=self.endpoint, reason=_REASONS[fault], count=count)

    @property
    def problem(self) -> str | None:
        """Why frames of this endpoint may be missing, or None if no fault is known."""
        with self._lock:
            fault = self._fault
        return None if fault is None else f"the frame stream at {self.endpoint}: {_REASONS[fault]}"

    def _handle(self, parts: list[memoryview]) -> None:
        arrived_s = time.perf_counter()
        with self._lock:
            self._last_message_s = time.monotonic()
            self._fault = None
            try:
                message = decode(parts)
            except WireError as error:
                if error.reason == "unknown_type":  # of a later version of the format, which may be skipped
                    self._messages["unknown_type"] += 1
                else:
                    self._reject(error.reason, str(error))
                return
            header = message.header
            self._messages[header.type] += 1
            owner = self._tracker.instrument_of(header.series_uid)
            if owner is not None and owner != header.instrument:
                self._reject(
                    "series_of_another_instrument",
                    f"a message of {header.instrument[:_MAX_NAME]!r} has the series_uid {header.series_uid} "
                    f"of a series of {owner[:_MAX_NAME]!r}; each series needs its own UUID",
                )
                return
            match header:
                case StartHeader():
                    if self._tracker.start(header):
                        self._lost.forget(header.series_uid)
                case HeartbeatHeader():
                    self._tracker.heartbeat(header)
                case EndHeader():
                    self._tracker.end(header)
                case ImageHeader():
                    if self._tracker.count_image(header) == "repeated":
                        return
                    assert message.pixels is not None
                    spec = self._spec()
                    pixels = self._fit(header, message.pixels, spec)
                    if pixels is None:
                        self._tracker.refuse(header)
                        self._lost.note(_source(header), "refused", self._last_rejection or "")
                    else:
                        self._lost.arrived(header.series_uid, header.frame)
                        self._on_frame(Fov(pixels, _source(header), arrived_s, spec=spec))

    def _fit(self, header: ImageHeader, pixels: npt.NDArray[Any], spec: FovSpec) -> npt.NDArray[Any] | None:
        """Return the pixels with their channels in the ensemble's order, or None if they do not fit it."""
        where = f"frame {header.frame} of series {header.series_id[:_MAX_NAME]!r}"
        if header.shape[1:] != (spec.height, spec.width):
            self._reject(
                "wrong_frame_size",
                f"{where} is {header.shape[1]}x{header.shape[2]}; the ensemble takes "
                f"{spec.height}x{spec.width}",
                header,
            )
            return None
        if sorted(header.channels) != sorted(spec.channels):
            self._reject(
                "wrong_channels",
                f"{where} has channels {', '.join(header.channels)[:_MAX_NAME]}; the ensemble takes "
                f"{', '.join(spec.channels)}",
                header,
            )
            return None
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            self._reject("non_finite_pixels", f"{where} has pixels that are NaN or infinite", header)
            return None
        if header.channels != spec.channels:
            return pixels[[header.channels.index(name) for name in spec.channels]]
        return pixels

    def _reject(self, reason: str, detail: str, header: ImageHeader | None = None) -> None:
        self._rejected[reason] += 1
        self._last_rejection = detail
        suppressed = self._log_lines.suppressed_since_last(reason)
        if suppressed is not None:
            which = {} if header is None else about_source(_source(header))
            count = self._rejected[reason]
            _log.warning("message rejected", reason=reason, detail=detail, count=count, **which)


def _source(header: ImageHeader) -> Source:
    return Source(
        kind="stream",
        instrument=header.instrument,
        series_id=header.series_id,
        series_uid=header.series_uid,
        frame=header.frame,
        index=header.index,
        position_um=header.position_um,
        pixel_size_um=header.pixel_size_um,
        acquired_at=header.timestamp.to_datetime(),
    )
