"""``senoscope serve``: the service."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
from types import FrameType

import structlog
import typer
import uvicorn

from senoscope.api.app import create_app
from senoscope.api.server import server_config
from senoscope.exposure import check_exposure
from senoscope.logs import configure_logging
from senoscope.service import Service
from senoscope.settings import Settings
from senoscope.starter import require_ensemble

_log = structlog.get_logger(__name__)
_M_MMAP_THRESHOLD = -3  # of malloc.h
_LARGE_BLOCK = 1024 * 1024  # more than a frame: on the way of live results nothing changes


def serve(settings: Settings) -> None:
    """Subscribe to the microscope's frames, classify them, and answer over HTTP, WebSocket and ZeroMQ."""
    configure_logging(settings.log_format)
    # A thread that has a result to tell must not wait for 5 ms, the default, while another one computes.
    sys.setswitchinterval(0.0005)
    _give_memory_back()
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    check_exposure(settings, host)
    service = Service(settings, on_failure=stop)
    config = _loaded(server_config(create_app(service), settings))
    require_ensemble(settings.model, settings.models_dir)  # a name that is not there is one clear line too
    server = _Server(config, service)
    scheme = "https" if settings.tls_cert else "http"
    typer.echo(f"Senoscope listens on {scheme}://{f'[{host}]' if ':' in host else host}:{port}", err=True)
    # uvicorn raises the signal that stopped it once more, for whoever started it; stopping when asked to is
    # success here, so there is nobody to tell.
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, lambda *_: None)
    server.run(sockets=[listener])
    if service.loading and not failures:
        # Stopped while it was loading: the networks cannot be interrupted, and there is nothing to save.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    if failures:
        raise typer.Exit(1)


class _Server(uvicorn.Server):
    """Goes on answering, not ready any more, while what waits is computed; then stops.

    A second signal stops it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; the second time, stop."""
        if self._draining or self._service.loading:
            super().handle_exit(sig, frame)
            return
        self._draining = True
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> None:
        try:
            self._service.drain(self._service.settings.drain_s)
        finally:
            self.should_exit = True


def _loaded(config: uvicorn.Config) -> uvicorn.Config:
    """Loaded now, so that a bad certificate is one clear line too."""
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        files = f"{config.ssl_certfile} and {config.ssl_keyfile}"
        raise OSError(f"TLS cannot be used with {files}: {error.strerror or error}") from error
    return config


def _give_memory_back() -> None:
    """Have the C library give large blocks back to the system as soon as they are freed.

    By default glibc raises the size from which it does, up to 32 MiB, with what is freed: after ten thousand
    requests of all kinds it held 230 MB that nobody used.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # there are other C libraries
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; made here, so that an address in use is one clear line before anything loads."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; --port takes another"
        ) from error
