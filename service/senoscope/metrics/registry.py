"""The registry of a service's metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric


class ServiceRegistry(CollectorRegistry):
    """A registry without the creation times of counters and histograms.

    They would nearly double what is scraped. ``prometheus_client.disable_created_metrics`` leaves them out
    too, but for the whole process.
    """

    def collect(self) -> Iterator[Metric]:
        """All families."""
        for family in super().collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
