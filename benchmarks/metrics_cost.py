"""Measure the cost of metrics and traces: per result on the delivery thread, and per scrape.

    python benchmarks/metrics_cost.py [--results N]

Results are those of a miniature ensemble; spans are sent to an address without a collector.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from senoscope.api.app import create_app
from senoscope.engine import Ensemble
from senoscope.fov import Fov
from senoscope.metrics.results import ResultMetrics
from senoscope.results.delivery import DeliveryTimes
from senoscope.results.record import Record, ResultMaker
from senoscope.scheduling.active_ensemble import fov_spec_of
from senoscope.service import Service
from senoscope.settings import Settings
from senoscope.tracing.spans import Traces
from senoscope_client.models.result import Source
from support import miniature as mini


def microseconds(work: Callable[[], object], times: int) -> dict[str, float]:
    """Return median and 99th percentile of one call, in microseconds."""
    took = []
    for _ in range(times):
        began_ns = time.perf_counter_ns()
        work()
        took.append((time.perf_counter_ns() - began_ns) / 1e3)
    took.sort()
    return {"p50": round(statistics.median(took), 1), "p99": round(took[int(0.99 * times)], 1)}


def a_record(directory: Path) -> Record:
    """Return the result of a frame."""
    with Ensemble.load(mini.build(directory), device="cpu", threads=1) as ensemble:
        source = Source(kind="stream", series_id="plate", acquired_at=datetime.now(UTC))
        fov = Fov(mini.bright(), source, spec=fov_spec_of(ensemble))
        (prediction,) = ensemble.predict(fov.pixels)
        maker = ResultMaker(ensemble, 24.0, linked=True)
        return maker.make(fov, prediction, ensemble.model_range, fov.arrived_s, 1.0)


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        record = a_record(Path(folder) / "miniature")
    metrics = ResultMetrics(CollectorRegistry(), 24.0)
    now_s = time.perf_counter()
    times = DeliveryTimes(now_s, now_s)

    def observe() -> None:
        metrics.on_result(record, times)

    service = Service(Settings(database_url="none"))
    create_app(service)
    found = {"metrics_us_per_result": microseconds(observe, options.results)}
    traces = Traces("http://127.0.0.1:9")
    found["traces_us_per_result"] = microseconds(
        lambda: traces.results.on_result(record, times), options.results
    )
    traces.close()
    found["scrape_us"] = microseconds(lambda: generate_latest(service.registry), 200)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
