"""Whether the clock can be trusted to say how old a result is, before results are deleted for their age."""

from __future__ import annotations

from typing import Final

_LEAP_S: Final = 24 * 3600.0
_STEP_S: Final = 3600.0
_SETTLING_S: Final = 4 * 3600.0


class SteadyClock:
    """Watches for a clock that was set wrong: it makes every result look old.

    A clock that is a day or more ahead of the last result that was logged, or that was set by an hour or more
    since the last look, is not trusted until it has gone on without another step for four hours.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._untrusted_until_s: float | None = None

    def is_trusted(self, wall_s: float, monotonic_s: float, last_logged_s: float | None) -> bool:
        """Whether results may be deleted for their age now; ask once a minute or so.

        Parameters
        ----------
        wall_s, monotonic_s : float
            Both clocks, in seconds.
        last_logged_s : float or None
            When the last result that was logged was made; None if there is none.
        """
        offset_s = wall_s - monotonic_s
        if self._offset_s is None:
            stepped = last_logged_s is not None and wall_s - last_logged_s > _LEAP_S
        else:
            stepped = abs(offset_s - self._offset_s) > _STEP_S
        self._offset_s = offset_s
        if stepped:
            self._untrusted_until_s = monotonic_s + _SETTLING_S
        elif self._untrusted_until_s is not None and monotonic_s >= self._untrusted_until_s:
            self._untrusted_until_s = None
        return self._untrusted_until_s is None
