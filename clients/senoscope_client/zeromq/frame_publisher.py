"""Sending the frames of a microscope over ZeroMQ, with the life cycle of a series around them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType
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
from senoscope_client.zeromq.curve_server import MAX_SUBSCRIPTION_BYTES, Gate
from senoscope_client.zeromq.hang_up import HANDSHAKE_MS

_INSTRUMENT: TypeAdapter[str] = TypeAdapter(Instrument)
_PIXEL_TYPES = ("uint8", "uint16", "float32")
_POLL_S = 0.01


class FramePublisher:
    """The acquisition PC's end of the frame stream; any thread may call it.

    Nobody is waited for: ZeroMQ keeps up to ``high_water_mark`` messages for each subscriber that is
    slower than the microscope and drops what comes on top; the subscriber sees the gap in the frame
    numbers. A subscriber gets what is published from the moment it is there; `wait_for_subscriber`
    waits for one.

    Parameters
    ----------
    endpoint : str
        Such as ``tcp://*:5555``; port ``*`` takes a free one, see `endpoint`.
    instrument : str
        The microscope's name, 1 to 64 characters without slash or blank.
    bind : bool
        False connects instead, to a proxy's XSUB socket for example.
    channels : sequence of str
        Of every frame, in the order of its first axis.
    pixel_size_um : float
        Of every frame.
    heartbeat_s : float
        Between heartbeats, which are sent while a series is open.
    high_water_mark : int
        Messages kept for each slow subscriber; a frame of 3 x 250 x 300 uint16 takes 450 kB.
    linger_s : float
        How long `close` waits for the last messages to get out.
    curve_keypair : path, optional
        Secret key file of this publisher: frames are encrypted, and go only to who knows its public key.
    allowed_keys : path, optional
        Folder of the public keys of the only subscribers that are let in; see `curve_server`.

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
            raise ValueError("allowed_keys needs curve_keypair: who is let in is known by CURVE keys alone")
        try:
            self.instrument = _INSTRUMENT.validate_python(instrument)
        except ValidationError:
            raise ValueError(
                f"instrument {instrument!r}: a name has 1 to 64 characters, no slash and no blank"
            ) from None
        self.channels = tuple(channels)
        self.pixel_size_um = pixel_size_um
        self._heartbeat_s = heartbeat_s
        self._lock = threading.Lock()  # over the socket and everything below it
        self._context = zmq.Context()
        # XPUB is PUB that also tells who subscribes.
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.SNDHWM, high_water_mark)
        self._socket.setsockopt(zmq.LINGER, round(linger_s * 1000))
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
        self._socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        self.gate: Gate | None = None
        try:
            if curve_keypair is not None:
                self.gate = Gate(self._socket, curve_keypair, allowed_keys)
            (self._socket.bind if bind else self._socket.connect)(endpoint)
        except (OSError, ValueError):
            self._context.destroy(0)
            raise
        except zmq.ZMQError as error:
            if self.gate is not None:
                self.gate.close()
            self._context.destroy(0)
            verb = "bound" if bind else "connected"
            raise OSError(f"the frame stream cannot be {verb} at {endpoint}: {error}") from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._subscriptions: set[bytes] = set()
        self._series: StartHeader | None = None
        self._frames = 0
        self._fault: BaseException | None = None
        self._closing = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="frame-heartbeat", daemon=True)
        self._heart.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("completed" if kind is None else "aborted")

    def wait_for_subscriber(self, timeout_s: float) -> bool:
        """Whether somebody has subscribed to frames, now or before the time is over."""
        give_up = time.monotonic() + timeout_s
        topic = f"fov/{self.instrument}/image".encode()
        while True:
            with self._lock:
                self._usable()
                self._note_subscriptions()
                if any(topic.startswith(subscription) for subscription in self._subscriptions):
                    return True
            if time.monotonic() >= give_up:
                return False
            time.sleep(_POLL_S)

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
        """Open a series and tell its subscribers; see `StartHeader` for the parameters.

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
            self._usable()
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
        """Send a frame; its pixels are copied, so the caller may use the array again at once.

        Parameters
        ----------
        pixels : ndarray of uint8, uint16 or float32, shape (C, Y, X)
            In raw detector units.
        position_um, index, user_data, exposure_ms
            As in `ImageHeader`.
        timestamp : Timestamp, optional
            When the frame was acquired; now, if left out.
        pixel_size_um : float, optional
            Of this frame, where it is not the publisher's.

        Returns
        -------
        int
            The frame's number in its series, from 0.

        Raises
        ------
        RuntimeError
            If no series is open, or the publisher is closed.
        ValueError
            If the array is none that the format can carry; the frame number is not used up then.
        """
        if pixels.dtype.name not in _PIXEL_TYPES:
            raise WireError(
                "dtype_not_allowed", f"{pixels.dtype}; convert to one of {', '.join(_PIXEL_TYPES)}"
            )
        with self._lock:
            self._usable()
            series = self._open_series()
            header = ImageHeader(
                instrument=self.instrument,
                series_id=series.series_id,
                series_uid=series.series_uid,
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
        """Close the series and tell its subscribers.

        Returns
        -------
        int
            How many frames it had.

        Raises
        ------
        RuntimeError
            If no series is open, or the publisher is closed.
        """
        with self._lock:
            self._usable()
            return self._end(reason)

    def close(self, reason: str = "aborted") -> None:
        """End an open series for ``reason``, let the last messages out, and close the socket."""
        with self._lock:
            if self._closing.is_set():
                return
            if self._series is not None and self._fault is None:
                self._end(reason)
            self._closing.set()
        self._heart.join()
        if self.gate is not None:
            self.gate.close()
        self._socket.close()
        self._context.term()

    def _end(self, reason: str) -> int:
        series, frames = self._open_series(), self._frames
        self._send(
            EndHeader(
                instrument=self.instrument,
                series_id=series.series_id,
                series_uid=series.series_uid,
                frames_sent=frames,
                reason=reason,
            )
        )
        self._series = None
        return frames

    def _beat(self) -> None:
        while not self._closing.wait(self._heartbeat_s):
            with self._lock:
                if self._series is None or self._closing.is_set():
                    continue
                last = self._frames - 1 if self._frames else None
                fields = self._series.model_dump(exclude={"htype", "type"})
                try:
                    self._send(HeartbeatHeader(**fields, frame=last))
                except zmq.ZMQError as error:  # told to whoever publishes next
                    self._fault = error
                    return

    def _send(self, header: Header, pixels: npt.NDArray[Any] | None = None) -> None:
        self._socket.send_multipart(encode(header, pixels))
        self._note_subscriptions()  # after the frame, which is in a hurry

    def _note_subscriptions(self) -> None:
        while True:
            try:
                message = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            # XPUB hands on whatever else subscribers send.
            kind, topic = message[0][:1], message[0][1:]
            if len(message) == 1 and kind == b"\x01":
                self._subscriptions.add(topic)
            elif len(message) == 1 and kind == b"\x00":
                self._subscriptions.discard(topic)

    def _usable(self) -> None:
        if self._closing.is_set():
            raise RuntimeError("the frame publisher is closed")
        if self._fault is not None:
            raise RuntimeError("the heartbeat has failed; open a new frame publisher") from self._fault

    def _open_series(self) -> StartHeader:
        if self._series is None:
            raise RuntimeError("no series is open; call start_series first")
        return self._series
