"""The size of batches of a stack: the one that takes the least time per FOV, among those allowed now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from senoscope.engine.batch_times import fastest_size, saves_time

# Of the newest measurement, once there are some: a machine that slows down shows within few batches.
_WEIGHT: Final = 0.2
# The first batch of a size also allocates memory. The second one is measured, and compared with single FOVs,
# of which some were measured under the same conditions.
_BATCHES_BEFORE_MEASURED: Final = 1
_SINGLES_BEFORE_GROWTH: Final = 3


class BatchSizer:
    """The size of batches, from measured compute times.

    While a stream is open, a live frame may arrive just after a batch began. It then waits for that batch
    before it is computed, and the time of both together should be within the deadline. If even one FOV takes
    too long for that, or if there is no deadline, batches are single FOVs. While no stream is open, every
    size is allowed.

    Parameters
    ----------
    compute_ms : mapping of int to float
        Time per batch size, measured when the ensemble was loaded; includes 1.
    deadline_ms : float or None
        From a frame's arrival to its result.
    largest : int
        FOVs of a batch at most.
    grows : bool
        Whether sizes that were not measured at load are tried, while no stream is open, as long as each saves
        time: on a CPU, where this delays nothing.
    """

    def __init__(
        self, compute_ms: Mapping[int, float], deadline_ms: float | None, *, largest: int, grows: bool
    ) -> None:
        self._at_load_ms = dict(compute_ms)
        self._deadline_ms = deadline_ms
        self._largest = largest
        self._grows = grows
        # Of all sizes alike: a size that is not used at present would otherwise keep an outdated time.
        self._slowdown = 1.0
        self._noted = 0
        self._singles = 0
        self._tried = 0  # batches of the size that is tried

    def note(self, size: int, compute_ms: float) -> None:
        """Take the time of a computed batch into account."""
        at_load_ms = self._at_load_ms.get(size)
        if at_load_ms is not None:
            self._noted += 1
            weight = max(_WEIGHT, 1 / self._noted)
            self._slowdown += weight * (compute_ms / at_load_ms - self._slowdown)
            self._singles += size == 1
        elif size == self._size_to_try():
            self._tried += 1
            if self._tried > _BATCHES_BEFORE_MEASURED:  # another thread may iterate over the earlier mapping
                self._at_load_ms = {**self._at_load_ms, size: compute_ms / self._slowdown}
                self._tried = 0

    def size(self, waiting: int, *, streaming: bool) -> int:
        """Return how many FOVs to take of those that wait.

        Parameters
        ----------
        streaming : bool
            Whether a stream is open.
        """
        to_try = None if streaming else self._size_to_try()
        if to_try is not None and to_try <= waiting:
            return to_try
        return self._measured_size(waiting, streaming)

    def seconds_for(self, fovs: int, *, streaming: bool) -> float:
        """Return how many seconds so many FOVs take, without live frames in between."""
        size = self._measured_size(fovs, streaming)
        return fovs / size * self._expected_ms(size) / 1e3

    def _measured_size(self, waiting: int, streaming: bool) -> int:
        at_load_ms = self._at_load_ms
        sizes = [size for size in at_load_ms if size <= waiting and (not streaming or self._in_time(size))]
        return fastest_size(at_load_ms, sizes) if sizes else 1

    def _in_time(self, size: int) -> bool:
        """Return whether a live frame that waits for a batch of this size still meets the deadline."""
        if self._deadline_ms is None:
            return size == 1
        return self._expected_ms(size) + self._expected_ms(1) <= self._deadline_ms

    def _size_to_try(self) -> int | None:
        largest = max(self._at_load_ms)
        if not self._grows or self._singles < _SINGLES_BEFORE_GROWTH or 2 * largest > self._largest:
            return None
        return 2 * largest if saves_time(self._at_load_ms, largest) else None

    def _expected_ms(self, size: int) -> float:
        return self._at_load_ms[size] * self._slowdown
