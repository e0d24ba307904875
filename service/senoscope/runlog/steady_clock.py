"""A check of the system clock, before results are deleted because of their age."""

from __future__ import annotations

from typing import Final

_MAX_AHEAD_S: Final = 24 * 3600.0
_MAX_STEP_S: Final = 3600.0
_DISTRUST_S: Final = 4 * 3600.0


class SteadyClock:
    """Detects a clock that was set wrong, which would make every result look old.

    A clock that is a day or more ahead of the last logged result, or that was changed by an hour or more
    since the last check, is not trusted until four hours have passed without another change.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._untrusted_until_s: float | None = None

    def is_trusted(self, wall_s: float, monotonic_s: float, last_logged_s: float | None) -> bool:
        """Return whether results may be deleted by age now; call it about once a minute.

        Parameters
        ----------
        wall_s, monotonic_s : float
            System clock and monotonic clock, in seconds.
        last_logged_s : float or None
            Time of the last logged result; None without results.
        """
        offset_s = wall_s - monotonic_s
        if self._offset_s is None:
            stepped = last_logged_s is not None and wall_s - last_logged_s > _MAX_AHEAD_S
        else:
            stepped = abs(offset_s - self._offset_s) > _MAX_STEP_S
        self._offset_s = offset_s
        if stepped:
            self._untrusted_until_s = monotonic_s + _DISTRUST_S
        elif self._untrusted_until_s is not None and monotonic_s >= self._untrusted_until_s:
            self._untrusted_until_s = None
        return self._untrusted_until_s is None
