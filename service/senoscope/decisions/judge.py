"""Application of rules to results, separately for each series, without side effects."""

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
# Limit on memory if a publisher opens many series.
_MAX_SERIES: Final = 64
# The actions that exclude each other on one field of view.
_EXCLUDES: Final[dict[Action, frozenset[Action]]] = {
    "revisit": frozenset({"revisit", "skip"}),
    "skip": frozenset({"revisit", "skip"}),
    "stop": frozenset({"stop"}),
}
_Place = tuple[float, float] | int


@dataclass
class _RuleState:
    """The state of one rule in one series."""

    met: int = 0  # number of consecutive fields of view that met the conditions
    held: bool = False  # whether the rule held on the last field of view


@dataclass
class _SeriesState:
    """The state of all rules and the revisits of one series."""

    states: list[_RuleState]
    last_frame: int | None = None
    revisits: int = 0
    places: list[_Place] = field(default_factory=list)

    def add_revisit(self, place: _Place | None) -> None:
        """Add a revisit."""
        self.revisits += 1
        if place is not None:
            self.places.append(place)


class Judge:
    """Applies rules to the results of all series. Not thread-safe.

    A rule begins to hold when its conditions were met on ``running`` consecutive fields of view, and holds
    until one does not meet them, taking release thresholds into account; a missing frame ends it. ``stop`` is
    decided when its rule begins to hold, ``revisit`` and ``skip`` on each field of view on which the rule
    holds. Of rules whose actions exclude each other on a field of view, the first of the file applies.

    Parameters
    ----------
    earlier : callable
        Returns earlier decisions on a series, for example those of a previous process, oldest first; they
        count for the limits.
    """

    def __init__(self, rules: RuleSet, earlier: Callable[[UUID], Iterable[Decision]] = lambda _: ()) -> None:
        self.rules = rules
        self.withheld = 0
        self._earlier = earlier
        self._series: OrderedDict[UUID, _SeriesState] = OrderedDict()

    def judge(self, result: Result) -> list[Decision]:
        """Return the decisions on a result; none if it does not belong to a series."""
        source = result.source
        if source.series_uid is None or source.frame is None:
            return []
        series = self._series_state(source.series_uid)
        consecutive = series.last_frame is not None and source.frame == series.last_frame + 1
        series.last_frame = source.frame
        decisions: list[Decision] = []
        taken: set[Action] = set()
        for rule, state in zip(self.rules.rules, series.states, strict=True):
            if not consecutive:
                state.met, state.held = 0, False
            before = state.held
            state.met = state.met + 1 if rule.when.hold(result, before) else 0
            state.held = state.met >= rule.running if not before else state.met > 0
            fires = state.held and not (rule.action == "stop" and before)
            if not fires or rule.action in taken:
                continue
            reason = rule.conditions(result, before)
            if rule.action == "revisit":
                revisit = self._count_revisit(series, source, rule.name)
                if revisit is None:
                    continue
                reason = f"{reason}; {revisit}"
            taken |= _EXCLUDES[rule.action]
            decisions.append(self._decision(rule, result, reason))
        return decisions

    def _series_state(self, uid: UUID) -> _SeriesState:
        series = self._series.get(uid)
        if series is None:
            series = _SeriesState([_RuleState() for _ in self.rules.rules])
            for decision in self._earlier(uid):
                # Decisions of a dry run do not count for the limits of effective decisions.
                if decision.action == "revisit" and decision.dry_run == self.rules.dry_run:
                    series.add_revisit(_place_of(decision))
            self._series[uid] = series
            while len(self._series) > _MAX_SERIES:
                self._series.popitem(last=False)
        self._series.move_to_end(uid)
        return series

    def _count_revisit(self, series: _SeriesState, source: Source, rule: str) -> str | None:
        """Count a revisit and return its number as text, or None if a limit is reached."""
        limits: RevisitLimits = self.rules.limits
        place = _place_of(source)
        if place is None:
            self._withhold(rule, source, "the frame has neither a position nor an index")
        elif series.revisits >= limits.max_revisits:
            self._withhold(rule, source, f"max_revisits ({limits.max_revisits}) is reached")
        elif (
            sum(_is_same_place(place, other, limits.place_radius_um) for other in series.places)
            >= limits.max_revisits_per_place
        ):
            self._withhold(
                rule, source, f"max_revisits_per_place ({limits.max_revisits_per_place}) is reached"
            )
        else:
            series.add_revisit(place)
            return f"revisit {series.revisits} of at most {limits.max_revisits}"
        return None

    def _withhold(self, rule: str, source: Source, reason: str) -> None:
        self.withheld += 1
        _log.info(
            "revisit withheld", rule=rule, series_id=source.series_id, frame=source.frame, reason=reason
        )

    def _decision(self, rule: Rule, result: Result, reason: str) -> Decision:
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
            reason=reason,
        )


def summary(decisions: Iterable[Decision]) -> dict[str, int]:
    """Return the number of decisions of each action."""
    counts = Counter(decision.action for decision in decisions)
    return {action: counts[action] for action in _EXCLUDES}


def _place_of(at: Source | Decision) -> _Place | None:
    """Return the stage position, or the index of the position, or None."""
    if at.position_um is not None:
        return at.position_um.x, at.position_um.y
    return None if at.index is None else at.index.p


def _is_same_place(one: _Place, other: _Place, radius_um: float) -> bool:
    if isinstance(one, int) or isinstance(other, int):
        return one == other
    return math.dist(one, other) <= radius_um
