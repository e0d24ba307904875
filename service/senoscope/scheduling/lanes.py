"""The two lanes: what waits to be computed, and what has to give way when a lane is full."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final, Literal, get_args

from senoscope.fov import Fov
from senoscope.results.delivery import Stack
from senoscope_client.errors import Busy

DropReason = Literal["lane_full", "ensemble_changed", "stopping"]
DROP_REASONS: Final[tuple[DropReason, ...]] = get_args(DropReason)
"""Why a live frame is not computed: newer ones came, an ensemble of another specification took over, or the
service stops."""


class LiveLane:
    """Frames of the stream; the oldest gives way to the newest.

    Parameters
    ----------
    depth : int
        Frames that may wait.

    on_dropped : callable, optional
        Called with each frame that is dropped, and why.

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

    def put(self, fov: Fov) -> None:
        """Queue a frame; if the lane is full its oldest frame is dropped and counted."""
        if len(self._frames) >= self._depth:
            self.drop(self._frames.popleft(), "lane_full")
        self._frames.append(fov)

    def take(self) -> Fov | None:
        """The frame that waits longest."""
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
    """Posted stacks, in the order of their coming; one that does not fit is refused.

    Parameters
    ----------
    depth : int
        FOVs that may wait. A stack larger than that is let in when nothing waits before it.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._stacks: deque[Stack] = deque()

    def require_room(self, fovs: int, seconds_for: Callable[[int], float]) -> None:
        """Raise if so many more FOVs cannot wait here.

        Parameters
        ----------
        seconds_for : callable
            Tells how long so many FOVs take to compute.

        Raises
        ------
        Busy
            With the time after which there should be room.
        """
        waiting = len(self)
        if waiting and waiting + fovs > self._depth:
            seconds = max(1.0, seconds_for(waiting))
            raise Busy(
                f"{waiting} fields of view wait already, {fovs} more exceed the lane's {self._depth}; "
                f"try again in about {round(seconds)} s",
                retry_after_s=seconds,
            )

    def put(self, stack: Stack) -> None:
        """Queue a stack."""
        self._stacks.append(stack)

    def take(self, size: Callable[[int], int]) -> tuple[Sequence[Fov], Stack] | None:
        """The next FOVs, all of one stack; stacks that nobody waits for any more are passed over.

        Parameters
        ----------
        size : callable
            Tells how many to take, of so many that wait.
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
        """FOVs not yet begun that somebody waits for."""
        return sum(stack.waiting for stack in self._stacks if not stack.done.cancelled())
