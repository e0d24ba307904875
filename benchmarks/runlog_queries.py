"""Measure the dashboard's queries of a large run log while results are written at the rate of a scan.

::

    python benchmarks/runlog_queries.py --sizes 200000,2000000 --out benchmarks/results/runlog_queries.json

Each log is filled without the engine: series of 50,000 FOVs, and some posted stacks. The queries use the
store, as the HTTP API does.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from senoscope.runlog.entries import ResultFilter
from senoscope.runlog.store import RunLog
from senoscope.runlog.tables import results
from senoscope_client.models.result import ModelRef, Normalization, Result, Source, Timing, Uncertainty

NETWORKS = (
    "densenet121",
    "inception_resnet_v2",
    "inception_v3",
    "mobilenet",
    "resnet50",
    "vgg19",
    "xception",
)
GRIDS = [(7, 9)] * 7
SERIES_LENGTH = 50_000
BEGAN_MS = 1_750_000_000_000
INTERVAL_MS = 42  # 24 frames a second
DIGEST = "0" * 64
_COLUMNS = "id, kind, series_uid, frame, created_ms, label, probability, model_digest, document, gradcam"


def series_of(n: int) -> uuid.UUID:
    """Return the series of result number n."""
    return uuid.UUID(int=0x1000 + n // SERIES_LENGTH)


class Rows:
    """Rows of the table of results, by number."""

    def __init__(self) -> None:
        self._rng = random.Random(1)
        self._gradcam = np.random.default_rng(1).random(sum(h * w for h, w in GRIDS), np.float32).tobytes()
        example = Result(
            id=uuid.UUID(int=0),
            source=Source(
                kind="stream", instrument="nlo-1", series_id="plate", series_uid=uuid.UUID(int=1), frame=0
            ),
            label="LABEL",
            probability=0.25,
            networks=dict.fromkeys(NETWORKS, 0.512345678),
            uncertainty=Uncertainty(entropy=0.812345678, mutual_information=0.1123456789, agreement=0.857),
            normalization=Normalization(source="model", low=[0.0, 1.0, 2.0], high=[300.5, 400.5, 500.5]),
            model=ModelRef(name="bench", version="1", digest=DIGEST),
            timing_ms=Timing(queue=0.123, compute=12.345, total=13.456),
            deadline_met=True,
        )
        self._document = example.model_dump_json(exclude_none=True)

    def row(self, n: int) -> tuple[Any, ...]:
        """Return the row of result number n."""
        created_ms = BEGAN_MS + n * INTERVAL_MS
        identifier = uuid.UUID(int=created_ms << 80 | 7 << 76 | 2 << 62 | n)
        # In every fifth series all cells are senescent.
        old = (n // SERIES_LENGTH) % 5 == 4
        probability = self._rng.uniform(0.5, 1) if old else self._rng.betavariate(0.6, 2.4)
        label = "senescent" if probability > 0.5 else "control"
        posted = n % 1009 == 0
        uid = None if posted else series_of(n)
        document = (
            self._document.replace(str(uuid.UUID(int=0)), str(identifier))
            .replace(str(uuid.UUID(int=1)), str(uid or uuid.UUID(int=1)))
            .replace("LABEL", label)
            .replace('"probability":0.25', f'"probability":{probability}')
            .replace('"frame":0', f'"frame":{n % SERIES_LENGTH}')
        )
        kind = "upload" if posted else "stream"
        return (
            *(identifier.hex, kind, uid.hex if uid else None, n % SERIES_LENGTH, created_ms, label),
            *(probability, DIGEST, document, self._gradcam),
        )


def fill(path: Path, size: int, rows: Rows) -> RunLog:
    """Create a log with ``size`` results."""
    log = RunLog(f"sqlite:///{path}")
    log.prepare()
    manifest = {
        "networks": [
            {"name": name, "gradcam_grid": grid} for name, grid in zip(NETWORKS, GRIDS, strict=True)
        ],
        "input": {"height": 250, "width": 300, "channels": [{"name": name} for name in ("SRS", "TPEF", "T")]},
    }
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("PRAGMA cache_size=-1000000")
    connection.execute("INSERT INTO models VALUES (?, ?)", (DIGEST, json.dumps(manifest)))
    for start in range(0, size, 20_000):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            f"INSERT INTO results ({_COLUMNS}) VALUES ({', '.join('?' * 10)})",
            (rows.row(n) for n in range(start, min(size, start + 20_000))),
        )
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    log.save_series(
        {"series_uid": str(series_of(n)), "series_id": "plate", "instrument": "nlo-1", "state": "ended"}
        for n in range(0, size, SERIES_LENGTH)
    )
    return log


def dashboard_queries(log: RunLog, size: int) -> dict[str, Callable[[random.Random], object]]:
    """Return the queries of the dashboard, each with random values."""

    def at(share: float) -> datetime:
        return datetime.fromtimestamp((BEGAN_MS + share * size * INTERVAL_MS) / 1000, UTC)

    def any_series(rng: random.Random) -> uuid.UUID:
        return series_of(rng.randrange(size))

    def one_result(rng: random.Random) -> object:
        n = rng.randrange(size)
        return log.result(uuid.UUID(int=(BEGAN_MS + n * INTERVAL_MS) << 80 | 7 << 76 | 2 << 62 | n))

    def page(**wanted: Callable[[random.Random], Any]) -> Callable[[random.Random], object]:
        return lambda rng: log.results(ResultFilter(**{k: v(rng) for k, v in wanted.items()}), 100)

    def deep(rng: random.Random) -> object:
        middle = log.results(ResultFilter(until=at(rng.random())), 100)
        return log.results(ResultFilter(), 100, middle.next)

    return {
        "newest": page(),
        "of one series": page(series=any_series),
        "of one label": page(label=lambda rng: rng.choice(["senescent", "control"])),
        "of a label that no result has": page(label=lambda _: "none"),
        "posted stacks": page(kind=lambda _: "upload"),
        "before a time": page(until=lambda rng: at(rng.random())),
        "after all": page(since=lambda _: at(2)),
        "probable": page(min_probability=lambda rng: rng.uniform(0.5, 1)),
        "of a probability that no result has": page(min_probability=lambda _: 1.0),
        "a label at another's probability": page(label=lambda _: "control", min_probability=lambda _: 0.9),
        "of a series, by label and probability": page(
            series=any_series, label=lambda _: "senescent", min_probability=lambda rng: rng.random()
        ),
        "probable, before a time": page(
            min_probability=lambda rng: rng.random(), until=lambda rng: at(rng.random())
        ),
        "page after page": deep,
        "series with counts": lambda _: log.series(100),
        "one series with counts": lambda rng: log.one_series(any_series(rng)),
        "one result with its maps": one_result,
    }


def measure(size: int, folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Fill a log, and query it while results are written."""
    rows = Rows()
    path = folder / f"{size}.sqlite3"
    began_s = time.perf_counter()
    log = fill(path, size, rows)
    filled_s = time.perf_counter() - began_s
    stop = threading.Event()
    commits: list[float] = []
    columns = _COLUMNS.split(", ")

    def write() -> None:
        n = size
        due_s = time.perf_counter()
        while not stop.is_set():
            row = dict(zip(columns, rows.row(n), strict=True))
            started_s = time.perf_counter()
            log.database.insert_rows(results, [row])
            commits.append((time.perf_counter() - started_s) * 1e3)
            n += 1
            if n % 24 == 0:
                log.database.checkpoint()
            due_s += INTERVAL_MS / 1000
            stop.wait(max(0.0, due_s - time.perf_counter()))

    writer = threading.Thread(target=write)
    writer.start()
    stop.wait(5)  # what a commit takes without concurrent reads
    quiet = len(commits)
    queries = dashboard_queries(log, size)
    taken: dict[str, list[float]] = {name: [] for name in queries}

    def run_queries(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(rounds // threads):
            for name, query in queries.items():
                started_s = time.perf_counter()
                query(rng)
                taken[name].append((time.perf_counter() - started_s) * 1e3)

    readers = [threading.Thread(target=run_queries, args=(seed,)) for seed in range(threads)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    stop.set()
    writer.join()
    log.close()
    used = path.stat().st_size
    path.unlink()
    return {
        "results": size,
        "log_mib": round(used / 2**20),
        "filled_s": round(filled_s, 1),
        "all_questions_ms": percentiles([ms for values in taken.values() for ms in values]),
        "questions_ms": {name: percentiles(values) for name, values in taken.items()},
        "commit_ms": percentiles(commits[quiet:]),
        "commit_without_readers_ms": percentiles(commits[:quiet]),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Return median, 99th percentile and maximum."""
    return {
        "p50": round(float(np.percentile(values, 50)), 2),
        "p99": round(float(np.percentile(values, 99)), 2),
        "max": round(max(values), 2),
        "n": len(values),
    }


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="20000,200000")
    parser.add_argument("--rounds", type=int, default=200, help="number of runs of each query")
    parser.add_argument("--threads", type=int, default=1, help="number of concurrent readers")
    parser.add_argument("--folder", type=Path, help="folder for the logs, 5 GB per million results")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    done = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for size in map(int, arguments.sizes.split(",")):
            done.append(measure(size, Path(folder), arguments.rounds, arguments.threads))
            print(json.dumps(done[-1], indent=2), flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(done, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
