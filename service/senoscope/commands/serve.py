"""``senoscope serve``: the service."""

from __future__ import annotations

import ipaddress
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
from senoscope.logs import configure_logging
from senoscope.service import Service
from senoscope.settings import Settings

_log = structlog.get_logger(__name__)
_LAST_ANSWERS_S = 3  # for answers that are computed, to clients that read slowly or still send


def serve(settings: Settings) -> None:
    """Subscribe to the microscope's frames, classify them, and answer over HTTP, WebSocket and ZeroMQ."""
    configure_logging(settings.log_format)
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    failures: list[Exception] = []

    def stop(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    if not ipaddress.ip_address(host).is_loopback:
        _log.warning(
            "anyone who reaches this address can use the service: it has no authentication", host=host
        )
    service = Service(settings, on_failure=stop)
    config = uvicorn.Config(
        create_app(service),
        log_config=None,
        access_log=False,
        ws="websockets-sansio",
        # Maps and pixels hardly compress, and compressing each message would cost more than sending it.
        ws_per_message_deflate=False,
        ws_max_size=65536,  # clients have nothing to say
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
    )
    server = _Server(config, service)
    typer.echo(f"Senoscope listens on http://{f'[{host}]' if ':' in host else host}:{port}", err=True)
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


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; made here, so that an address in use is one clear line before anything loads."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; --port takes another"
        ) from error
