"""Judging results by rules, series by series: results in, decisions out, and nothing else touched."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import structlog

from senoscope.decisions.rules import RevisitLimits, Rule, RuleSet
from senoscope.results.record import uuid7
from senoscope_client.models.decision import Action, Decision
from senoscope_client.models.result import Result, Source

_log = structlog.get_logger(__name__)
# Bound on what a publisher that opens series after series can make us remember.
_MAX_SERIES: Final = 64
# What one field of view cannot be asked for at the same time.
_EXCLUDES: Final[dict[Action, frozenset[Action]]] = {
    "revisit": frozenset({"revisit", "skip"}),
    "skip": frozenset({"revisit", "skip"}),
    "stop": frozenset({"stop"}),
}
_Place = tuple[float, float] | int


@dataclass
class _State:
    """How one rule stands in one series.

    Attributes
    ----------
    met : int
        Consecutive fields of view that met its conditions.
    held : bool
        Whether it held on the last one.
    """

    met: int = 0
    held: bool = False


@dataclass
class _Series:
    """What was seen of a series."""

    states: list[_State]
    last_frame: int | None = None
    revisits: int = 0
    places: list[_Place] = field(default_factory=list)

    def count(self, place: _Place, radius_um: float) -> int:
        """How many revisits of a place were decided."""
        return sum(_same(place, other, radius_um) for other in self.places)

    def note(self, place: _Place | None) -> None:
        """One more revisit."""
        self.revisits += 1
        if place is not None:
            self.places.append(place)


class Judge:
    """Applies rules to the results of all series; for one thread.

    A rule holds on a field of view once its conditions were met on ``running`` consecutive ones, and until
    one does not meet them any more, release thresholds counted; a missing frame ends a run. ``stop`` is
    decided when its rule begins to hold, ``revisit`` and ``skip`` on every field of view on which theirs
    does. On one field of view the first rule of the file that asks for something wins.

    Parameters
    ----------
    rules : RuleSet
    earlier : callable
        The decisions that were made on a series before, by a service that has ended since, oldest first:
        its limits are those of the series.
    """

    def __init__(self, rules: RuleSet, earlier: Callable[[UUID], Iterable[Decision]] = lambda _: ()) -> None:
        self.rules = rules
        self.withheld = 0
        self._earlier = earlier
        self._series: OrderedDict[UUID, _Series] = OrderedDict()

    def judge(self, result: Result) -> list[Decision]:
        """What is to be done after a result; nothing, if it is none of a series."""
        source = result.source
        if source.series_uid is None or source.frame is None:
            return []
        series = self._of(source.series_uid)
        running = series.last_frame is not None and source.frame == series.last_frame + 1
        series.last_frame = source.frame
        decisions: list[Decision] = []
        taken: set[Action] = set()
        for rule, state in zip(self.rules.rules, series.states, strict=True):
            if not running:
                state.met, state.held = 0, False
            before = state.held
            state.met = state.met + 1 if rule.when.hold(result, before) else 0
            state.held = state.met >= rule.running if not before else state.met > 0
            fires = state.held and not (rule.action == "stop" and before)
            if not fires or rule.action in taken:
                continue
            why = self._why(rule, result, before)
            if rule.action == "revisit":
                words = self._revisit(series, source, rule.name)
                if words is None:
                    continue
                why = f"{why}; {words}"
            taken |= _EXCLUDES[rule.action]
            decisions.append(self._decision(rule, result, why))
        return decisions

    def _of(self, uid: UUID) -> _Series:
        series = self._series.get(uid)
        if series is None:
            series = _Series([_State() for _ in self.rules.rules])
            for decision in self._earlier(uid):
                # Trying a rule out costs a series nothing of what it may ask for in earnest.
                if decision.action == "revisit" and decision.dry_run == self.rules.dry_run:
                    series.note(_place(decision))
            self._series[uid] = series
            while len(self._series) > _MAX_SERIES:
                self._series.popitem(last=False)
        self._series.move_to_end(uid)
        return series

    def _revisit(self, series: _Series, source: Source, rule: str) -> str | None:
        """Count a revisit and tell which one it is, or None if it is not to be."""
        limits: RevisitLimits = self.rules.limits
        place = _place(source)
        if place is None:
            self._withhold(rule, source, "the frame tells neither position nor index")
        elif series.revisits >= limits.max_revisits:
            self._withhold(rule, source, f"max_revisits ({limits.max_revisits}) is reached")
        elif series.count(place, limits.place_radius_um) >= limits.max_revisits_per_place:
            self._withhold(
                rule, source, f"max_revisits_per_place ({limits.max_revisits_per_place}) is reached"
            )
        else:
            series.note(place)
            return f"revisit {series.revisits} of at most {limits.max_revisits}"
        return None

    def _withhold(self, rule: str, source: Source, why: str) -> None:
        self.withheld += 1
        _log.info("revisit withheld", rule=rule, series_id=source.series_id, frame=source.frame, reason=why)

    def _decision(self, rule: Rule, result: Result, why: str) -> Decision:
        source = result.source
        assert source.series_uid is not None
        assert source.frame is not None
        return Decision(
            id=uuid7(),
            series_uid=source.series_uid,
            series_id=source.series_id,
            instrument=source.instrument,
            frame=source.frame,
            index=source.index,
            position_um=source.position_um,
            result_id=result.id,
            action=rule.action,
            rule=rule.name,
            dry_run=self.rules.dry_run,
            reason=why,
        )

    @staticmethod
    def _why(rule: Rule, result: Result, held: bool) -> str:
        run = f", for {rule.running} fields of view running" if rule.running > 1 else ""
        return rule.when.describe(result, held) + run


def summary(decisions: Iterable[Decision]) -> dict[str, int]:
    """How many decisions ask for what."""
    counts = Counter(decision.action for decision in decisions)
    return {action: counts[action] for action in _EXCLUDES}


def _place(at: Source | Decision) -> _Place | None:
    """Where the stage stood: its position, else the index of its position."""
    if at.position_um is not None:
        return at.position_um.x, at.position_um.y
    return None if at.index is None else at.index.p


def _same(one: _Place, other: _Place, radius_um: float) -> bool:
    if isinstance(one, int) or isinstance(other, int):
        return one == other
    return math.dist(one, other) <= radius_um
