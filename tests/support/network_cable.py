"""A network cable between a publisher and the service, for tests that cut it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

_POLL_S = 0.2


class Cable:
    """A proxy of TCP connections to a publisher, which can be cut.

    Parameters
    ----------
    port : int
        Where the service connects to.
    target : int
        Where the publisher is; it may come and go.
    """

    def __init__(self, port: int, target: int) -> None:
        self._target = target
        self._whole, self._closing = threading.Event(), threading.Event()
        self._whole.set()
        self._hung_up = False
        self._greeting: bytes | None = None
        self._then = b""
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(_POLL_S)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self, *, hang_up: bool) -> None:
        """Stop forwarding, silently, or by closing open connections and refusing new ones."""
        self._hung_up = hang_up
        if hang_up:
            self._close_all()
        else:
            self._whole.clear()

    def mend(self) -> None:
        """Forward again, beginning with the bytes that waited."""
        self._hung_up = False
        self._whole.set()

    def inject(self, data: bytes) -> None:
        """Send bytes to the service, between those of the publisher."""
        for end in self._near():
            end.sendall(data)

    def reset(self) -> None:
        """Reset the open connections (RST), as a machine that was switched off and on."""
        for end in self._near():
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
        self._close_all()

    def greet_next(self, data: bytes, then: bytes = b"") -> None:
        """Send only these bytes on the next connection, and reset the open ones.

        Parameters
        ----------
        data : bytes
        then : bytes
            To follow when the other side has finished ZeroMQ's handshake.
        """
        self._then = then
        self._greeting = data
        self._close_all()

    @property
    def greeted(self) -> bool:
        """Whether the connection after `greet_next` was made."""
        return self._greeting is None

    def _near(self) -> list[socket.socket]:
        port = self._listener.getsockname()[1]
        with self._lock:
            return [end for end in self._ends if end.getsockname()[1] == port]

    def close(self) -> None:
        self._closing.set()
        self.mend()
        self._close_all()
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            if self._greeting is not None:
                with contextlib.suppress(OSError):
                    near.sendall(self._greeting)
                    heard = b""
                    while self._then and b"READY" not in heard:
                        heard += near.recv(4096) or b"READY"
                    near.sendall(self._then)
                self._greeting = None
                with self._lock:
                    self._ends.add(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=60)
            except OSError:
                near.close()
                continue
            near.settimeout(None)
            far.settimeout(None)
            with self._lock:
                self._ends |= {near, far}
            if self._hung_up:
                self._close_all()
                continue
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                sink.sendall(data)
        self._close(source)
        self._close(sink)

    def _close_all(self) -> None:
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            self._close(end)

    def _close(self, end: socket.socket) -> None:
        with self._lock:
            self._ends.discard(end)
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
        end.close()
