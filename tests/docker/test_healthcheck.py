"""The health check of the container, with real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import Server, free_port, start_server, stop_server

PROGRAM = Path(__file__).parents[2] / "docker" / "healthcheck.py"


def run_check(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run the health check as the container does, with misleading proxy variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SENOSCOPE_")}
    proxies = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        [sys.executable, str(PROGRAM)],
        env=environment | proxies | variables,
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
def test_a_ready_service_is_healthy(server: Server, host: str) -> None:
    done = run_check(SENOSCOPE_HOST=host, SENOSCOPE_PORT=server.url.rpartition(":")[2])
    assert (done.returncode, done.stdout.strip()) == (0, "ready"), done.stderr


def test_a_missing_service_is_unhealthy() -> None:
    port = free_port()
    done = run_check(SENOSCOPE_PORT=str(port))
    assert done.returncode == 1
    assert f"http://127.0.0.1:{port}/readyz" in done.stdout


def test_with_a_certificate_the_check_uses_https(server: Server) -> None:
    done = run_check(SENOSCOPE_PORT=server.url.rpartition(":")[2], SENOSCOPE_TLS_CERT="/run/secrets/tls_cert")
    assert done.returncode == 1  # this server has no certificate
    assert "https://127.0.0.1" in done.stdout
    assert "SSL" in done.stdout
