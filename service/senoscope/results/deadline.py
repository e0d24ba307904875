"""The deadline of results: the configured one, or one that the device can keep."""

from __future__ import annotations

from typing import Final

from senoscope.engine import Ensemble

DEFAULT_DEADLINE_MS: Final = 24.0
"""From the arrival of a frame to its result: the time that a field of view takes at the paper's rate."""


def deadline_for(ensemble: Ensemble, configured_ms: float | None) -> float | None:
    """Return the deadline of results of an ensemble in milliseconds, or None if there is none.

    The configured one applies everywhere. Otherwise it is `DEFAULT_DEADLINE_MS` where the device can keep it:
    not on a CPU, and not if one field of view took longer when the ensemble was loaded.
    """
    if configured_ms is not None:
        return configured_ms
    can_keep = not ensemble.on_cpu and ensemble.compute_ms[1] < DEFAULT_DEADLINE_MS
    return DEFAULT_DEADLINE_MS if can_keep else None
