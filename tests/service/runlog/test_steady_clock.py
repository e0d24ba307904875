"""When the clock is trusted to say how old a result is."""

from __future__ import annotations

from senoscope.runlog.steady_clock import SteadyClock

HOUR, DAY = 3600.0, 86400.0
NOW = 1_800_000_000.0


def test_a_log_without_results_and_one_of_today_are_trusted_at_once() -> None:
    assert SteadyClock().is_trusted(NOW, 5.0, None)
    assert SteadyClock().is_trusted(NOW, 5.0, NOW - DAY / 2)
    assert SteadyClock().is_trusted(NOW, 5.0, NOW + 400 * DAY), "a clock that is behind deletes nothing"


def test_a_clock_far_ahead_of_the_last_result_is_trusted_after_a_while() -> None:
    clock = SteadyClock()
    seen = [clock.is_trusted(NOW + s, s, NOW - 400 * DAY) for s in (0.0, 60.0, 3 * HOUR, 4 * HOUR, 5 * HOUR)]
    assert seen == [False, False, False, True, True]


def test_a_clock_that_is_set_is_not_trusted_for_a_while_and_begins_anew_when_set_again() -> None:
    clock = SteadyClock()
    assert clock.is_trusted(NOW, 0.0, NOW)
    assert clock.is_trusted(NOW + 60 + 1800, 60.0, NOW), "half an hour: a time server's correction"
    assert not clock.is_trusted(NOW + 400 * DAY, 120.0, NOW)
    assert not clock.is_trusted(NOW + 400 * DAY + 3 * HOUR, 120.0 + 3 * HOUR, NOW)
    assert not clock.is_trusted(NOW + 5 * HOUR, 5 * HOUR, NOW), "set right again"
    assert not clock.is_trusted(NOW + 8 * HOUR, 8 * HOUR, NOW)
    assert clock.is_trusted(NOW + 9 * HOUR, 9 * HOUR, NOW)
