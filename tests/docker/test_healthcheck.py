"""The program that a container's engine asks, against real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import Server, free_port, start_server, stop_server

PROGRAM = Path(__file__).parents[2] / "docker" / "healthcheck.py"


def ask(**variables: str) -> subprocess.CompletedProcess[str]:
    """As the container asks, and in an environment that would lead astray."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SENOSCOPE_")}
    astray = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, str(PROGRAM)],
        env=environment | astray | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def server(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start_server(miniature, tmp_path_factory.mktemp("health") / "log.txt", "--api-key", "k" * 32)
    yield running
    stop_server(running)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_service_that_is_ready(server: Server, host: str) -> None:
    done = ask(SENOSCOPE_HOST=host, SENOSCOPE_PORT=server.url.rpartition(":")[2])
    assert (done.returncode, done.stdout.strip()) == (0, "ready"), done.stderr


def test_nobody_there() -> None:
    port = free_port()
    done = ask(SENOSCOPE_PORT=str(port))
    assert done.returncode == 1
    assert f"http://127.0.0.1:{port}/readyz" in done.stdout


def test_a_service_with_a_certificate_is_asked_over_https(server: Server) -> None:
    done = ask(SENOSCOPE_PORT=server.url.rpartition(":")[2], SENOSCOPE_TLS_CERT="/run/secrets/tls_cert")
    assert done.returncode == 1  # this one has none
    assert "https://127.0.0.1" in done.stdout
    assert "SSL" in done.stdout
