"""The two queues of the scheduler: live frames and posted stacks."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, get_args

from senoscope.fov import Fov
from senoscope.results.delivery import Stack
from senoscope_client.errors import Busy

DropReason = Literal["lane_full", "ensemble_changed", "stopping"]
DROP_REASONS: Final[tuple[DropReason, ...]] = get_args(DropReason)
"""Why a live frame is not computed: newer frames arrived, an ensemble of another specification took over, or
the service stops."""


class LiveLane:
    """Frames of the stream; when the lane is full, the oldest is dropped.

    Parameters
    ----------
    depth : int
        Frames that may wait.
    on_dropped : callable, optional
        Called with each frame that is dropped, and the reason.

    Attributes
    ----------
    dropped : Counter of DropReason
        Frames that are not computed.
    """

    def __init__(self, depth: int, on_dropped: Callable[[Fov, DropReason], None] = lambda *_: None) -> None:
        self._depth = depth
        self._on_dropped = on_dropped
        self._frames: deque[Fov] = deque()
        self.dropped: Counter[DropReason] = Counter(dict.fromkeys(DROP_REASONS, 0))

    def enqueue_frame(self, fov: Fov) -> None:
        """Queue a frame; if the lane is full, drop and count the oldest."""
        if len(self._frames) >= self._depth:
            self.drop(self._frames.popleft(), "lane_full")
        self._frames.append(fov)

    def take(self) -> Fov | None:
        """Remove and return the oldest frame, or None."""
        return self._frames.popleft() if self._frames else None

    def drop(self, fov: Fov, reason: DropReason) -> None:
        """Count and report a frame that is not computed."""
        self.dropped[reason] += 1
        self._on_dropped(fov, reason)

    def clear(self, reason: DropReason) -> None:
        """Drop all frames that wait, and count them."""
        while self._frames:
            self.drop(self._frames.popleft(), reason)

    def __len__(self) -> int:
        return len(self._frames)


class BatchLane:
    """Posted stacks, in the order of their arrival; one that does not fit is refused.

    Parameters
    ----------
    depth : int
        FOVs that may wait. A larger stack is accepted when no other waits.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._stacks: deque[Stack] = deque()

    def require_room(self, fovs: int, seconds_for: Callable[[int], float]) -> None:
        """Raise if so many more FOVs cannot be queued.

        Parameters
        ----------
        seconds_for : callable
            Returns how long so many FOVs take to compute.

        Raises
        ------
        Busy
            With the time after which there should be space.
        """
        waiting = len(self)
        if waiting and waiting + fovs > self._depth:
            seconds = max(1.0, seconds_for(waiting))
            raise Busy(
                f"{waiting} fields of view wait already, {fovs} more exceed the lane's {self._depth}; "
                f"try again in about {round(seconds)} s",
                retry_after_s=seconds,
            )

    def enqueue_stack(self, stack: Stack) -> None:
        """Queue a stack."""
        self._stacks.append(stack)

    def take(self, size: Callable[[int], int]) -> tuple[Sequence[Fov], Stack] | None:
        """Remove and return the next FOVs, all of one stack; cancelled stacks are skipped.

        Parameters
        ----------
        size : callable
            Returns how many to take of so many that wait.
        """
        while self._stacks:
            stack = self._stacks[0]
            if stack.done.cancelled() or not stack.waiting:
                self._stacks.popleft()
                continue
            fovs = stack.fovs[stack.taken : stack.taken + size(stack.waiting)]
            stack.taken += len(fovs)
            return fovs, stack
        return None

    def fail_all(self, error: Exception) -> None:
        """Fail every stack that still has FOVs to be computed."""
        for stack in self._stacks:
            stack.fail(error)
        self._stacks.clear()

    def fail_begun(self, error: Exception) -> None:
        """Fail every stack of which some FOVs were taken and others still wait."""
        begun = [stack for stack in self._stacks if stack.taken and stack.waiting]
        for stack in begun:
            stack.fail(error)
            self._stacks.remove(stack)

    def __len__(self) -> int:
        """Return how many FOVs wait, without those of cancelled stacks."""
        return sum(stack.waiting for stack in self._stacks if not stack.done.cancelled())
