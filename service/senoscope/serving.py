"""Running a service in a process of its own, from its start until it is stopped."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import structlog
import uvicorn

from senoscope.api.app import create_app
from senoscope.api.server import server_config
from senoscope.command_line import handling_signals
from senoscope.exposure import ExposureWarning
from senoscope.process import freeze_loaded_objects, set_up_process
from senoscope.service import Service
from senoscope.settings import Settings

_log = structlog.get_logger(__name__)


class ServiceServer(uvicorn.Server):
    """Goes on answering, not ready any more, while what waits is computed; then stops.

    A second signal stops it at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; the second time, stop."""
        if self._draining or self.service.loading:
            super().handle_exit(sig, frame)
            return
        self._draining = True
        threading.Thread(target=self._drain, name="drain", daemon=True).start()

    def _drain(self) -> None:
        try:
            self.service.drain(self.service.settings.drain_s)
        finally:
            self.should_exit = True


def prepare_server(settings: Settings) -> ServiceServer:
    """Make a service and the server around it; nothing is set for the process, and nothing started.

    Raises
    ------
    OSError, SenoscopeError
        If a file that the settings name cannot be used, or what they ask for is not installed.
    """

    def stop(error: Exception) -> None:
        del error  # logged already
        server.should_exit = True

    service = Service(settings, on_failure=stop, on_loaded=freeze_loaded_objects)
    server = ServiceServer(_loaded(server_config(create_app(service), settings)), service)
    return server


def run_server(server: ServiceServer, listener: socket.socket, warnings: Sequence[ExposureWarning]) -> bool:
    """Serve until a signal or a failure ends it; whether it was no failure.

    The process is set up for this service alone. It ends here if the service is stopped while it loads.
    """
    set_up_process(server.service.settings.log_format)
    for warning in warnings:
        _log.warning(warning.event, **warning.facts)
    # uvicorn raises the signal that stopped it once more, for whoever started it; stopping when asked to is
    # success here, so there is nobody to tell.
    with handling_signals(lambda *_: None, signal.SIGINT, signal.SIGTERM):
        server.run(sockets=[listener])
    if server.service.failed:
        return False
    if server.service.loading:
        # Stopped while it was loading: the networks cannot be interrupted, and there is nothing to save.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return True


def _loaded(config: uvicorn.Config) -> uvicorn.Config:
    """Loaded now, so that a bad certificate is one clear line too."""
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        files = f"{config.ssl_certfile} and {config.ssl_keyfile}"
        raise OSError(f"TLS cannot be used with {files}: {error.strerror or error}") from error
    return config
