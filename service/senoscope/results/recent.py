"""The most recent results, with their pixels."""

from __future__ import annotations

import threading
from collections import OrderedDict
from uuid import UUID

from senoscope.results.delivery import DeliveryTimes, ResultSink, SinkStage
from senoscope.results.record import Record


class RecentRecords(ResultSink):
    """The sink that keeps the most recent records, as many as fit into a given amount of memory.

    Pictures of Grad-CAM over the channels need the pixels, which the run log does not hold.

    Parameters
    ----------
    max_bytes : int
        Of pixels, maps, features and results together. The newest record is always kept.
    """

    stage = SinkStage.REMEMBER

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._records: OrderedDict[UUID, Record] = OrderedDict()
        self._lock = threading.Lock()

    def on_result(self, record: Record, _: DeliveryTimes) -> None:
        """Keep a record."""
        self.add(record)

    def add(self, record: Record) -> None:
        """Keep a record, and drop the oldest ones that no longer fit."""
        record = record.detached()
        with self._lock:
            self._records[record.result.id] = record
            self._bytes += record.nbytes
            while self._bytes > self._max_bytes and len(self._records) > 1:
                _, dropped = self._records.popitem(last=False)
                self._bytes -= dropped.nbytes

    def get(self, identifier: UUID) -> Record | None:
        """Return the record of that identifier, or None if it is not, or no longer, kept."""
        with self._lock:
            return self._records.get(identifier)
