"""The process of a service, from its start until it is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING

import structlog
import uvicorn
from starlette.responses import JSONResponse

from senoscope.access.exposure import ExposureWarning
from senoscope.api.server import server_config
from senoscope.commands.command_line import handling_signals
from senoscope.commands.process import collect_garbage, keep_loaded_objects, set_up_process
from senoscope.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from senoscope.scheduling.loading import Loading
    from senoscope.service import Service

_log = structlog.get_logger(__name__)
_FORCED_EXIT_S = 10.0


class StartingApp:
    """ASGI application that takes requests while the real one is being created.

    ``/livez`` is answered at once; every other request waits until the real application has started.

    Parameters
    ----------
    make : callable
        Creates the real application; called in a separate thread.
    on_failure : callable
        Called with the reason if it cannot be created or started.
    """

    def __init__(self, make: Callable[[], ASGIApp], on_failure: Callable[[Exception], None]) -> None:
        self._make = make
        self._on_failure = on_failure
        self._settled = asyncio.Event()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or run the lifespan of the real application."""
        if scope["type"] == "lifespan":
            await self._run(scope, receive, send)
            return
        if not self._settled.is_set() and _is_liveness_check(scope):
            await JSONResponse({"status": "alive"})(scope, receive, send)
            return
        await self._settled.wait()
        if self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            answer = JSONResponse({"status": "not_ready", "reason": "the service could not start"}, 503)
            await answer(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        startup = [await receive()]
        await send({"type": "lifespan.startup.complete"})
        try:
            app = await asyncio.to_thread(self._make)
        except Exception as error:
            self._fail(error)
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return

        async def receive_from_start() -> Message:
            return startup.pop() if startup else await receive()

        async def send_rest(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self._app = app
                self._settled.set()
            elif message["type"] == "lifespan.startup.failed":
                self._fail(RuntimeError(message.get("message", "")))
            else:
                await send(message)

        await app(scope, receive_from_start, send_rest)

    def _fail(self, error: Exception) -> None:
        self._on_failure(error)
        self._settled.set()


class ServiceServer(uvicorn.Server):
    """A server that listens while its service is being created.

    After a signal it reports not ready, but serves requests until waiting frames and stacks are computed. A
    second signal stops it at once.

    Parameters
    ----------
    on_made : callable
        Called when the service was created.

    Attributes
    ----------
    service : Service or None
        None until it is created.
    failure : Exception or None
        Why it could not be created.
    end_within_s : float or None
        Time limit from a second signal to the end of the process; a third signal ends it at once. None: the
        process is shared and is not ended.
    on_created, on_loaded : callable or None
        Called when the service was created, usually while its ensemble is loaded, and when it has loaded it;
        set them before the server runs.

    Raises
    ------
    OSError
        If certificate and key cannot be used.
    """

    def __init__(self, settings: Settings, on_made: Callable[[], None]) -> None:
        super().__init__(_load_config(server_config(StartingApp(self._make, self._fail), settings)))
        self.failure: Exception | None = None
        self.service: Service | None = None
        self.settings = settings
        self.on_created: Callable[[], None] | None = None
        self.on_loaded: Callable[[], None] | None = None
        self._opening: Loading | None = None
        self._on_made = on_made
        self._signals = 0
        self.end_within_s: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal; stop at the second."""
        del sig, frame  # all signals are handled alike
        self._signals += 1
        if self._signals == 1 and self.service is not None and not self.service.loading:
            threading.Thread(target=self._drain, args=(self.service,), name="drain", daemon=True).start()
            return
        self.should_exit = True
        if self.end_within_s is None or self._signals < 2:
            return
        if self._signals > 2:
            _end_process(1)
        # For a graph that cannot be interrupted, or a disk that does not respond.
        limit = threading.Timer(self.end_within_s, _end_process, [1])
        limit.daemon = True
        limit.start()

    def _drain(self, service: Service) -> None:
        try:
            service.drain(self.settings.drain_s)
        finally:
            self.should_exit = True

    def _make(self) -> ASGIApp:
        # Networks are verified and opened in other threads, meanwhile the rest is imported: FastAPI,
        # SQLAlchemy and the parts of the service take more than a second.
        self._opening = _begin_to_load(self.settings)
        from senoscope.api.app import create_app
        from senoscope.api.middleware.observer import Observer
        from senoscope.service import Service

        service = Service(self.settings, self._exit_after_failure, self.on_loaded, self._opening)
        app = create_app(service)
        self.service = service
        self._on_made()
        if self.on_created is not None:
            self.on_created()
        return Observer(app, app.state.request_metrics, service.traces)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.should_exit = True
        if self.service is None and self._opening is not None:
            self._opening.cancellation.cancel(error)

    @property
    def loading(self) -> bool:
        """Whether an ensemble is being loaded, even if that was cancelled."""
        if self.service is None:
            return self._opening is not None and self._opening.thread.is_alive()
        return self.service.loading or self.service.changing

    def _exit_after_failure(self, error: Exception) -> None:
        del error  # logged by the service
        self.should_exit = True


def run_server(server: ServiceServer, listener: socket.socket, warnings: Sequence[ExposureWarning]) -> bool:
    """Serve until a signal or a failure, and return whether it ended without a failure.

    Sets up the process for this service. Ends the process if the service is stopped, or fails, while it
    loads an ensemble.

    Raises
    ------
    Exception
        If the service could not be created: the reason.
    """
    set_up_process(server.settings.log_format)
    server.on_created, server.on_loaded = collect_garbage, keep_loaded_objects
    for warning in warnings:
        _log.warning(warning.event, **warning.facts)
    # uvicorn raises the signal that stopped it once more, for the parent process; here a requested stop is
    # success.
    server.end_within_s = _FORCED_EXIT_S
    with (
        handling_signals(lambda *_: None, signal.SIGINT, signal.SIGTERM),
        handling_signals(server.handle_exit, *_hangups()),
    ):
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure
    service = server.service
    failed = service is not None and service.failed
    if server.loading:
        # An ensemble that could not be interrupted is still loading: Python would wait for it.
        _end_process(1 if failed else 0)
    return not failed


def _begin_to_load(settings: Settings) -> Loading | None:
    """Begin to load the ensemble that the settings name; None if there is none, or it must be built first."""
    from senoscope.engine.errors import EnsembleError
    from senoscope.starter.locate import require_ensemble

    try:
        folder = require_ensemble(settings.model, settings.models_dir)
    except EnsembleError:  # the service reports it
        return None
    if folder is None:
        return None
    from senoscope.engine.cancellation import Cancellation
    from senoscope.scheduling.loading import Loading

    return Loading(folder, settings, Cancellation())


def _hangups() -> list[signal.Signals]:
    """Return the signal that a closed terminal sends, unless the parent process ignores it."""
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return []
    return [hangup]


def _end_process(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _is_liveness_check(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["path"] == "/livez" and scope["method"] in {"GET", "HEAD"}


def _load_config(config: uvicorn.Config) -> uvicorn.Config:
    """Load the configuration now, so that an unusable certificate is reported in one line."""
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        files = f"{config.ssl_certfile} and {config.ssl_keyfile}"
        raise OSError(f"TLS cannot be used with {files}: {error.strerror or error}") from error
    return config
