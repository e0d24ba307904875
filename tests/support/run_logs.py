"""Results for run logs, created without an ensemble, and a PostgreSQL server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psycopg

from senoscope.engine.manifest import Manifest
from senoscope.results.record import uuid7
from senoscope.runlog.entries import Entry
from senoscope.runlog.keeper import LogKeeper
from senoscope_client.models.result import Flag, ModelRef, Normalization, Result, Source, Timing, Uncertainty
from support import miniature as mini
from support.servers import free_port

SERIES = uuid.UUID(int=7)


def grids(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random(grid, dtype=np.float32) for grid in mini.GRIDS]


def result(frame: int, *, probability: float = 0.25, created_s: float | None = None, **source) -> Result:
    identifier = uuid7()
    if created_s is not None:
        rest = identifier.int & ((1 << 80) - 1)
        identifier = uuid.UUID(int=round(created_s * 1000) << 80 | rest)
    fields = {"kind": "stream", "instrument": "nlo-1", "series_id": "plate 1", "series_uid": SERIES} | source
    return Result(
        id=identifier,
        source=Source(**fields, frame=frame),
        label="senescent" if probability > 0.5 else "control",
        probability=probability,
        networks={name: float(np.float32(probability)) for name in mini.NAMES},
        uncertainty=Uncertainty(entropy=0.8, mutual_information=0.3, agreement=1),
        flags=[Flag(code="saturated", message="10 % of SRS", channel="SRS", value=0.1)],
        normalization=Normalization(source="session", low=[0, 1, 2], high=[3, 4, 5]),
        model=ModelRef(name="miniature", version="1", digest="0" * 64),
        timing_ms=Timing(queue=1, compute=2, total=3.5),
        deadline_met=True,
    )


def entry(manifest: Manifest, frame: int, **changes) -> Entry:
    made = result(frame, **changes)
    return Entry.of(made, grids(frame), manifest, made.model_dump_json(exclude_none=True).encode())


def wait_for(condition: Callable[[], object], timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_written(keeper: LogKeeper) -> None:
    wait_for(lambda: keeper.problem is None and keeper.status().waiting == 0)


@contextmanager
def write_locked(path: Path) -> Iterator[None]:
    """Lock an SQLite log in another process within the block."""
    program = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('BEGIN EXCLUSIVE')\nprint('locked', flush=True)\nsys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline().strip() == b"locked"
    try:
        yield
    finally:
        other.communicate()


class Disk:
    """A folder that may be mounted as a separate file system, if the tests run as root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, *options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "senoscope-test", str(self.folder)]
        try:
            return subprocess.run(command, check=False, capture_output=True).returncode == 0
        except OSError:
            return False

    def set_writable(self, writable: bool) -> None:
        mode = "rw" if writable else "ro"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True)

    def umount(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)


class PostgresServer:
    """A PostgreSQL server with its own data folder; root runs it as another user, as PostgreSQL requires."""

    def __init__(self, folder: Path) -> None:
        self._as_user: dict = {}
        if os.geteuid() == 0:
            import pwd  # not available on Windows

            self._as_user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid}
        if self._as_user:
            shutil.chown(folder, **self._as_user)
        self._data = folder / "data"
        self.port = free_port()
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "senoscope", "--no-sync")

    def _run(self, *command: str) -> None:
        subprocess.run(
            command, check=True, cwd=self._data.parent, stdout=subprocess.DEVNULL, timeout=60, **self._as_user
        )

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *("postgres", "-D", str(self._data), "-k", str(self._data), "-p", str(self.port)),
                *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"),
            ],
            cwd=self._data.parent,
            stderr=subprocess.DEVNULL,
            **self._as_user,
        )
        wait_for(self._answers)

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")
        self.process.wait(60)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True

    def url(self, database: str) -> str:
        return f"postgresql://senoscope@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        name = f"log_{uuid.uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp())
    try:
        server = PostgresServer(folder)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)
