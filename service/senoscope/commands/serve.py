"""``senoscope serve``: run the service."""

from __future__ import annotations

import socket

import typer

from senoscope.settings import Settings, settings_command


@settings_command
def serve(settings: Settings) -> None:
    """Classify the microscope's frames, and serve results over HTTP, WebSocket and ZeroMQ."""
    from senoscope.access.exposure import check_exposure
    from senoscope.starter.locate import require_ensemble

    # Settings are checked before the service is imported.
    with _listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        warnings = check_exposure(settings, host)
        _check_files(settings)

        from senoscope.commands.serving import ServiceServer, run_server

        scheme = "https" if settings.tls_cert else "http"
        address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        server = ServiceServer(settings, lambda: typer.echo(f"Senoscope listens on {address}", err=True))
        require_ensemble(settings.model, settings.models_dir)
        if not run_server(server, listener, warnings):
            raise typer.Exit(1)


def _check_files(settings: Settings) -> None:
    """Read the files that the settings name, so that an unusable one is reported at once."""
    if settings.api_keys is not None:
        from senoscope.access.api_keys import read_keys

        read_keys(settings.api_keys)
    if settings.rules is not None:
        from senoscope.decisions.rules import read_rules

        read_rules(settings.rules)
    if settings.watch is not None and not settings.watch.is_dir():
        raise NotADirectoryError(f"--watch: {settings.watch} is not a folder")


def _listen(host: str, port: int) -> socket.socket:
    """Open the listening socket, before anything is loaded: an address in use is reported in one line."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with --port"
        ) from error
