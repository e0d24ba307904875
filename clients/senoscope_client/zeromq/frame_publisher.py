"""The frame publisher: sends series of frames from the acquisition PC over ZeroMQ."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self, cast

import numpy.typing as npt
import zmq
from pydantic import JsonValue, TypeAdapter, ValidationError

from senoscope_client.wire.headers import Instrument, PixelType
from senoscope_client.wire.messages import (
    EndHeader,
    Header,
    HeartbeatHeader,
    ImageHeader,
    Index,
    Mosaic,
    Position,
    StartHeader,
    Timestamp,
    WireError,
    encode,
)
from senoscope_client.zeromq.curve_keys import StrPath
from senoscope_client.zeromq.curve_server import MAX_SUBSCRIPTION_BYTES, CurveAccess
from senoscope_client.zeromq.hang_up import HANDSHAKE_MS

_INSTRUMENT: TypeAdapter[str] = TypeAdapter(Instrument)
_PIXEL_TYPES = ("uint8", "uint16", "float32")
_POLL_INTERVAL_S = 0.01


class FramePublisher:
    """Publishes frames from the acquisition PC; thread-safe.

    Publishing never waits for a subscriber: ZeroMQ keeps up to ``high_water_mark`` messages for each
    subscriber that is slower than the microscope and drops further ones, which the subscriber detects by
    the gap in the frame numbers. A subscriber receives what is published after it has connected;
    `wait_for_subscriber` waits for one.

    Parameters
    ----------
    endpoint : str
        Such as ``tcp://*:5555``; port ``*`` chooses a free one, see `endpoint`.
    instrument : str
        The microscope's name, 1 to 64 characters without slash or blank.
    bind : bool
        False: connect instead, for example to the XSUB socket of a proxy.
    channels : sequence of str
        Of every frame, in the order of its first axis.
    pixel_size_um : float
        Of every frame.
    heartbeat_s : float
        Interval of the heartbeats, which are sent while a series is open.
    high_water_mark : int
        Messages kept for each slow subscriber; a frame of 3 x 250 x 300 uint16 takes 450 kB.
    linger_s : float
        How long `close` waits until the last messages are sent.
    curve_keypair : path, optional
        Secret key file of this publisher: frames are encrypted, and subscribers need its public key.
    allowed_keys : path, optional
        Folder of the public keys of the subscribers to accept, see `curve_server`; default: all.

    Attributes
    ----------
    endpoint : str
        That subscribers connect to.
    gate : CurveAccess or None
        Counts the subscribers that were refused; None without ``curve_keypair``.

    Raises
    ------
    OSError
        If the endpoint cannot be bound or connected, or a key file cannot be read.
    ValueError
        If the instrument's name is not allowed, or a key file holds no key.
    """

    def __init__(
        self,
        endpoint: str,
        instrument: str,
        *,
        bind: bool = True,
        channels: Sequence[str] = ("SRS", "TPEF", "Transmission"),
        pixel_size_um: float = 0.35,
        heartbeat_s: float = 1.0,
        high_water_mark: int = 500,
        linger_s: float = 2.0,
        curve_keypair: StrPath | None = None,
        allowed_keys: StrPath | None = None,
    ) -> None:
        if allowed_keys is not None and curve_keypair is None:
            raise ValueError("allowed_keys needs curve_keypair: subscribers are identified by CURVE keys")
        try:
            self.instrument = _INSTRUMENT.validate_python(instrument)
        except ValidationError:
            raise ValueError(
                f"instrument {instrument!r}: a name must have 1 to 64 characters, without slash or blank"
            ) from None
        self.channels = tuple(channels)
        self.pixel_size_um = pixel_size_um
        self._heartbeat_s = heartbeat_s
        self._lock = threading.Lock()  # for the socket and all attributes that follow
        self._context = zmq.Context()
        # XPUB is PUB that also receives the subscriptions.
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, high_water_mark)
        self._socket.setsockopt(zmq.LINGER, round(linger_s * 1000))
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self.gate: CurveAccess | None = None
        with ExitStack() as undo:
            undo.callback(self._context.destroy, 0)
            if curve_keypair is not None:
                self.gate = CurveAccess(self._socket, curve_keypair, allowed_keys)
                undo.callback(self.gate.close)
            try:
                (self._socket.bind if bind else self._socket.connect)(endpoint)
            except zmq.ZMQError as error:
                verb = "bound" if bind else "connected"
                raise OSError(f"the frame stream cannot be {verb} at {endpoint}: {error}") from error
            undo.pop_all()
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._subscriptions: set[bytes] = set()
        self._series: StartHeader | None = None
        self._frames = 0
        self._heartbeat_error: BaseException | None = None
        self._closing = threading.Event()
        self._heartbeat_thread = threading.Thread(
            target=self._send_heartbeats, name="frame-heartbeat", daemon=True
        )
        self._heartbeat_thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close("completed" if kind is None else "aborted")

    def wait_for_subscriber(self, timeout_s: float) -> bool:
        """Wait until there is a subscriber to frames; return whether there is one before the time-out."""
        deadline_s = time.monotonic() + timeout_s
        topic = f"fov/{self.instrument}/image".encode()
        while True:
            with self._lock:
                self._require_usable()
                self._read_subscriptions()
                if any(topic.startswith(subscription) for subscription in self._subscriptions):
                    return True
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(_POLL_INTERVAL_S)

    def start_series(
        self,
        series_id: str,
        planned_frames: int | None = None,
        mosaic: Mosaic | None = None,
        *,
        pump_wavelength_nm: float | None = None,
        stokes_wavelength_nm: float | None = None,
        wavenumber_cm1: float | None = None,
        user_data: Mapping[str, JsonValue] | None = None,
    ) -> uuid.UUID:
        """Open a series and send its start message; see `StartHeader` for the parameters.

        Returns
        -------
        UUID
            Of the series.

        Raises
        ------
        RuntimeError
            If a series is open, or the publisher is closed.
        """
        header = StartHeader(
            instrument=self.instrument,
            series_id=series_id,
            series_uid=uuid.uuid4(),
            planned_frames=planned_frames,
            mosaic=mosaic,
            pump_wavelength_nm=pump_wavelength_nm,
            stokes_wavelength_nm=stokes_wavelength_nm,
            wavenumber_cm1=wavenumber_cm1,
            user_data=dict(user_data or {}),
        )
        with self._lock:
            self._require_usable()
            if self._series is not None:
                raise RuntimeError(f"series {self._series.series_id!r} is still open; end it first")
            self._send(header)
            self._series, self._frames = header, 0
        return header.series_uid

    def publish(
        self,
        pixels: npt.NDArray[Any],
        position_um: Position | None = None,
        index: Index | None = None,
        *,
        user_data: Mapping[str, JsonValue] | None = None,
        exposure_ms: float | None = None,
        timestamp: Timestamp | None = None,
        pixel_size_um: float | None = None,
    ) -> int:
        """Send a frame; its pixels are copied, so that the caller may reuse the array at once.

        Parameters
        ----------
        pixels : ndarray of uint8, uint16 or float32, shape (C, Y, X)
            In raw detector units.
        position_um, index, user_data, exposure_ms
            As in `ImageHeader`.
        timestamp : Timestamp, optional
            When the frame was acquired; default: now.
        pixel_size_um : float, optional
            Of this frame; default: that of the publisher.

        Returns
        -------
        int
            The frame's number in its series, from 0.

        Raises
        ------
        RuntimeError
            If no series is open, or the publisher is closed.
        ValueError
            If the format does not support the array; its frame number is then used for the next frame.
        """
        if pixels.dtype.name not in _PIXEL_TYPES:
            raise WireError(
                "dtype_not_allowed", f"{pixels.dtype}; convert to one of {', '.join(_PIXEL_TYPES)}"
            )
        with self._lock:
            self._require_usable()
            header = ImageHeader(
                **self._series_fields(),
                frame=self._frames,
                shape=cast(tuple[int, int, int], pixels.shape),
                dtype=cast(PixelType, pixels.dtype.name),
                channels=self.channels,
                timestamp=timestamp or Timestamp.from_ns(time.time_ns()),
                pixel_size_um=pixel_size_um or self.pixel_size_um,
                position_um=position_um,
                index=index,
                exposure_ms=exposure_ms,
                user_data=dict(user_data or {}),
            )
            self._send(header, pixels)
            self._frames += 1
            return header.frame

    def end_series(self, reason: str = "completed") -> int:
        """Close the series and send its end message.

        Returns
        -------
        int
            Number of frames of the series.

        Raises
        ------
        RuntimeError
            If no series is open, or the publisher is closed.
        """
        with self._lock:
            self._require_usable()
            return self._send_end(reason)

    def close(self, reason: str = "aborted") -> None:
        """End an open series with ``reason``, send the last messages, and close the socket."""
        with self._lock:
            if self._closing.is_set():
                return
            if self._series is not None and self._heartbeat_error is None:
                self._send_end(reason)
            self._closing.set()
        self._heartbeat_thread.join()
        if self.gate is not None:
            self.gate.close()
        self._socket.close()
        self._context.term()

    def _send_end(self, reason: str) -> int:
        self._send(EndHeader(**self._series_fields(), frames_sent=self._frames, reason=reason))
        self._series = None
        return self._frames

    def _send_heartbeats(self) -> None:
        while not self._closing.wait(self._heartbeat_s):
            with self._lock:
                if self._series is None or self._closing.is_set():
                    continue
                last = self._frames - 1 if self._frames else None
                fields = self._series.model_dump(exclude={"htype", "type"})
                try:
                    self._send(HeartbeatHeader(**fields, frame=last))
                except zmq.ZMQError as error:  # raised by the next call
                    self._heartbeat_error = error
                    return

    def _send(self, header: Header, pixels: npt.NDArray[Any] | None = None) -> None:
        self._socket.send_multipart(encode(header, pixels))
        self._read_subscriptions()  # after sending, which must not be delayed

    def _read_subscriptions(self) -> None:
        while True:
            try:
                message = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            # XPUB also passes on other messages of subscribers.
            kind, topic = message[0][:1], message[0][1:]
            if len(message) == 1 and kind == b"\x01":
                self._subscriptions.add(topic)
            elif len(message) == 1 and kind == b"\x00":
                self._subscriptions.discard(topic)

    def _require_usable(self) -> None:
        if self._closing.is_set():
            raise RuntimeError("the frame publisher is closed")
        if self._heartbeat_error is not None:
            raise RuntimeError(
                "a heartbeat could not be sent; open a new frame publisher"
            ) from self._heartbeat_error

    def _series_fields(self) -> dict[str, Any]:
        """Return the fields that identify the open series in each header."""
        if self._series is None:
            raise RuntimeError("no series is open; call start_series first")
        return self._series.model_dump(include={"instrument", "series_id", "series_uid"})
