"""The size of batches of a stack: as large as possible without delaying a live frame too long."""

from __future__ import annotations

from collections.abc import Mapping

_WEIGHT = 0.2  # of the newest measurement, so that a machine that slows down shows within a few batches


class BatchSizer:
    """The size of batches, from measured compute times.

    A live frame may arrive just after a batch began. It then waits for that batch before it is computed, and
    the time of both together should be within the deadline. If even one FOV takes too long for that (on a
    CPU), batches are single FOVs.

    Parameters
    ----------
    compute_ms : mapping of int to float
        Measured time per batch size, for the sizes that the engine was warmed up for; includes 1.
    deadline_ms : float
        From a frame's arrival to its result.
    """

    def __init__(self, compute_ms: Mapping[int, float], deadline_ms: float) -> None:
        self._compute_ms = dict(compute_ms)
        self._deadline_ms = deadline_ms

    def note(self, size: int, compute_ms: float) -> None:
        """Take the time of a computed batch into account."""
        before = self._compute_ms.get(size)
        if before is not None:
            self._compute_ms[size] = before + _WEIGHT * (compute_ms - before)

    def size(self, waiting: int) -> int:
        """Return how many FOVs to take of those that wait."""
        own_ms = self._compute_ms[1]
        fitting = [
            size
            for size, took_ms in self._compute_ms.items()
            if size <= waiting and took_ms + own_ms <= self._deadline_ms
        ]
        return max(fitting, default=1)

    def seconds_for(self, fovs: int) -> float:
        """Return how many seconds so many FOVs take, without live frames in between."""
        size = self.size(fovs)
        return fovs / size * self._compute_ms[size] / 1e3
