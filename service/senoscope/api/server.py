"""The HTTP server: uvicorn, with limits that the application cannot set."""

from __future__ import annotations

import uvicorn
from starlette.types import ASGIApp

from senoscope.api.protocol import SECURITY_HEADERS, GuardedProtocol
from senoscope.settings import Settings

# Connections that may wait to be accepted. When no more files can be opened, asyncio tries to accept this
# many each time, and logs each failure.
_BACKLOG = 128
# WebSocket clients have no reason to send anything large.
_MAX_FRAME_BYTES = 4096
# At shutdown, when everything is computed: time for clients that read slowly or still send.
_SHUTDOWN_TIMEOUT_S = 3


def server_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration for an application."""

    class Protocol(GuardedProtocol):
        header_timeout_s = settings.header_timeout_s

    return uvicorn.Config(
        app,
        http=Protocol,
        loop="auto",  # uvloop, except on Windows
        server_header=False,
        headers=list(SECURITY_HEADERS.items()),
        proxy_headers=False,  # a client could forge its address with them
        log_config=None,
        access_log=False,
        backlog=_BACKLOG,
        ws="websockets-sansio",
        # Maps and pixels hardly compress, and compressing a message takes longer than sending it.
        ws_per_message_deflate=False,
        ws_max_size=_MAX_FRAME_BYTES,
        timeout_graceful_shutdown=_SHUTDOWN_TIMEOUT_S,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
