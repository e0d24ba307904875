"""When results may be deleted by age according to the clock."""

from __future__ import annotations

from senoscope.runlog.steady_clock import SteadyClock

HOUR, DAY = 3600.0, 86400.0
NOW = 1_800_000_000.0


def test_the_clock_is_trusted_at_once_without_results_or_with_recent_ones() -> None:
    assert SteadyClock().is_trusted(NOW, 5.0, None)
    assert SteadyClock().is_trusted(NOW, 5.0, NOW - DAY / 2)
    assert SteadyClock().is_trusted(NOW, 5.0, NOW + 400 * DAY), "a slow clock deletes nothing"


def test_a_clock_far_ahead_of_the_last_result_is_trusted_after_four_hours() -> None:
    clock = SteadyClock()
    seen = [clock.is_trusted(NOW + s, s, NOW - 400 * DAY) for s in (0.0, 60.0, 3 * HOUR, 4 * HOUR, 5 * HOUR)]
    assert seen == [False, False, False, True, True]


def test_each_change_of_the_clock_starts_a_new_period_without_trust() -> None:
    clock = SteadyClock()
    assert clock.is_trusted(NOW, 0.0, NOW)
    assert clock.is_trusted(NOW + 60 + 1800, 60.0, NOW), "half an hour, as by a time server"
    assert not clock.is_trusted(NOW + 400 * DAY, 120.0, NOW)
    assert not clock.is_trusted(NOW + 400 * DAY + 3 * HOUR, 120.0 + 3 * HOUR, NOW)
    assert not clock.is_trusted(NOW + 5 * HOUR, 5 * HOUR, NOW), "corrected"
    assert not clock.is_trusted(NOW + 8 * HOUR, 8 * HOUR, NOW)
    assert clock.is_trusted(NOW + 9 * HOUR, 9 * HOUR, NOW)
