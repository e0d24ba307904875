"""When a demo's scan is over: not before its last frame, however long that takes to compute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from senoscope.commands.demo import _is_complete
from senoscope.live_table import DemoScore


def stream(state: str = "ended", **live: int) -> dict[str, Any]:
    counts = {"waiting": 0, "classified": 12, "dropped": 0, "failed": 0} | live
    return {"receiver": {"series": [{"state": state, "received": 12}]}, "live": counts}


@pytest.mark.parametrize(
    ("status", "shown", "complete"),
    [
        (stream(), 12, True),
        (stream(state="open"), 12, False),
        (stream(waiting=1, classified=10), 10, False),
        (stream(classified=11), 11, False),  # the last is being computed
        (stream(), 11, False),  # the last is on its way here
        (stream(classified=11, dropped=1), 11, True),
        (stream(classified=11, failed=1), 11, True),
        ({"receiver": {"series": []}, "live": stream()["live"]}, 12, False),
    ],
)
def test_a_scan_is_over_when_every_frame_is_accounted_for(
    status: dict[str, Any], shown: int, complete: bool
) -> None:
    score = cast(DemoScore, SimpleNamespace(classified=shown))
    assert _is_complete(status, score) is complete
