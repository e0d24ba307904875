"""The service that is measured: a process with addresses and a run log of its own."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from senoscope.child_process import ChildProcess, child_process, find_port, wait_ready
from senoscope_client.http.client import Client
from senoscope_client.models.status import ModelInfo

if TYPE_CHECKING:
    from senoscope.settings import Settings

# Settings of this machine's real service that the measured one must not have: addresses, sources of frames,
# places of results, access. All others are measured as they are set.
_NOT_TAKEN_OVER: Final = frozenset(
    (
        *("model", "host", "port", "stream", "instrument", "results", "results_cam", "watch"),
        *("watch_interval_s", "watch_settle_s", "watch_axes", "watch_channels"),
        *("database_url", "keep_days", "keep_mib", "archive", "rules"),
        *("api_keys", "api_key", "insecure", "tls_cert", "tls_key"),
        *("curve_keypair", "stream_server_key", "results_allowed_keys", "otlp_endpoint", "log_format"),
    )
)


@dataclass(frozen=True)
class MeasuredService:
    """A running service.

    Attributes
    ----------
    frames_at : str
        ZeroMQ endpoint that it subscribes to.
    deadline_ms : float or None
    start_s : float
        From the start of the process until it was ready.
    environment : dict of str to str
        For further processes of the measurement.
    """

    url: str
    frames_at: str
    client: Client
    process: ChildProcess
    model: ModelInfo
    deadline_ms: float | None
    start_s: float
    environment: dict[str, str]

    @property
    def channels(self) -> list[str]:
        """Names of the channels that its ensemble takes."""
        return [channel["name"] for channel in self.model.manifest["input"]["channels"]]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that its ensemble takes."""
        size = self.model.manifest["input"]
        return size["height"], size["width"]


@contextmanager
def running_service(settings: Settings, folder: Path) -> Iterator[MeasuredService]:
    """Run a service on the ensemble in a folder within the block, with a temporary run log in SQLite.

    Raises
    ------
    NotReady
        If it does not become ready.
    """
    port, frames_at = find_port(0), f"tcp://127.0.0.1:{find_port(0)}"
    url = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SENOSCOPE_")}
    with tempfile.TemporaryDirectory() as home:
        serve = ["serve", "--model", str(folder), "--port", str(port), "--stream", frames_at]
        serve += ["--results", "", "--database-url", f"sqlite:///{Path(home) / 'runlog.sqlite3'}"]
        began_s = time.perf_counter()
        with (
            child_process("service", "senoscope.cli", serve + _options(settings), environment) as process,
            Client(url) as client,
        ):
            wait_ready(client, process)
            yield MeasuredService(
                url=url,
                frames_at=frames_at,
                client=client,
                process=process,
                model=client.model_info(),
                deadline_ms=client.stream_status().live.deadline_ms,
                start_s=round(time.perf_counter() - began_s, 2),
                environment=environment,
            )


def _options(settings: Settings) -> list[str]:
    options = []
    for name in sorted(settings.model_fields_set - _NOT_TAKEN_OVER):
        value = getattr(settings, name)
        if value is not None:
            options += [f"--{name.replace('_', '-')}", str(value)]
    return options
