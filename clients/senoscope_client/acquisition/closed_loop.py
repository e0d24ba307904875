"""Closed-loop acquisition with pymmcore-plus: a planned scan that follows the service's decisions."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from senoscope_client.acquisition.micromanager import FOV_KEY, MdaFrames, fov_key
from senoscope_client.errors import SenoscopeError
from senoscope_client.http.client import Client
from senoscope_client.http.live import LiveDecisions
from senoscope_client.http.retries import NO_RETRIES
from senoscope_client.models.decision import Decision, Judged

if TYPE_CHECKING:
    from pymmcore_plus.mda import MDARunner
    from useq import MDAEvent

_log = logging.getLogger(__name__)
_SLICE_S: Final = 0.2
_RECONNECT_S: Final = 0.5
_TIMEOUT_S: Final = 10.0


@dataclass
class LoopSummary:
    """Summary of a run.

    Attributes
    ----------
    planned, revisited, skipped : int
        Number of planned fields of view that were scanned, scanned again, and skipped.
    published : int
        Fields of view that were sent to the service, revisits included.
    incomplete, failed : int
        Fields of view that were not sent: a channel is missing; the images cannot be published.
    foreign : dict of str to int
        Images that were not sent because their channel is not one of the publisher's, by channel name.
    stopped_by : str or None
        The rule that stopped the run.
    unanswered : int
        Fields of view that the service did not judge within ``patience_s``.
    ignored : int
        Decisions that were not carried out: dry runs, and revisits beyond ``max_revisits``.
    decisions : list of Decision
        All decisions that were received.
    """

    planned: int = 0
    revisited: int = 0
    skipped: int = 0
    published: int = 0
    incomplete: int = 0
    failed: int = 0
    foreign: dict[str, int] = field(default_factory=dict)
    stopped_by: str | None = None
    unanswered: int = 0
    ignored: int = 0
    decisions: list[Decision] = field(default_factory=list)


class ClosedLoop:
    """Runs a plan on pymmcore-plus' acquisition engine and carries out decisions while it runs.

    A decision refers to a frame; the stage moves only to positions of the plan. Decisions of dry runs are
    never carried out, nor are more than ``max_revisits`` revisits.

    Parameters
    ----------
    frames : MdaFrames
        Not connected; created with the publisher that the service subscribes to. Its ``on_published`` is
        replaced.
    service_url : str
        Of the service that classifies and decides, such as ``http://127.0.0.1:8750``.
    api_key : str, optional
        Needed if the service requires one.
    revisit : {"end", "next"}
        When fields of view are scanned again: after the plan, or before the plan's next field of view.
    max_revisits : int
        Maximum number of revisits in one run, however many the service decides.
    patience_s : float
        How long to wait, after the plan, for the service to judge the fields of view; the time starts again
        with each message of the service.
    """

    def __init__(
        self,
        frames: MdaFrames,
        service_url: str,
        *,
        api_key: str | None = None,
        revisit: Literal["end", "next"] = "end",
        max_revisits: int = 100,
        patience_s: float = 10.0,
    ) -> None:
        self._frames = frames
        self._service = (service_url, _TIMEOUT_S, api_key)
        self._revisit_time = revisit
        self._max_revisits = max_revisits
        self._patience_s = patience_s
        frames.on_published = self._record_published
        self._changed = threading.Condition(frames.lock)
        self._runner: MDARunner | None = None
        self._reset()

    def run(self, runner: MDARunner, plan: Iterable[MDAEvent]) -> LoopSummary:
        """Run a plan, and return when the plan and all decisions on it are carried out.

        Parameters
        ----------
        runner : MDARunner
            Such as ``CMMCorePlus.instance().mda``; it may be paused or cancelled meanwhile.
        plan : iterable of MDAEvent
            Such as an MDASequence.

        Raises
        ------
        SenoscopeError
            If the service cannot be reached before the run begins (later the run waits for it); if the
            presets of the plan do not include the publisher's channels; or, after the run, if there were
            images and none of them could be published.
        """
        self._frames.require_channels(plan)
        self._reset()
        finished = threading.Event()
        receiver = threading.Thread(
            target=self._receive_decisions, args=(self._subscribe(), finished), name="decisions", daemon=True
        )
        receiver.start()
        self._runner = runner
        self._frames.connect(runner)
        try:
            # An iterator, so that the engine takes each event when it is due and combines none.
            runner.run(self._events(plan))
        finally:
            self._frames.disconnect()
            finished.set()
            receiver.join()
            summary, frames = self.summary, self._frames
            summary.published, summary.incomplete = frames.published, frames.incomplete
            summary.failed, summary.foreign = frames.failed, dict(frames.foreign)
        if not summary.published and (summary.foreign or summary.incomplete or summary.failed):
            raise SenoscopeError(
                "nothing was published: every field of view needs the channels "
                f"{', '.join(self._frames.channels)}; other channels of which images were received: "
                f"{', '.join(summary.foreign) or 'none'}; fields of view with a missing channel: "
                f"{summary.incomplete}; fields of view that cannot be published: {summary.failed} (see the "
                "log)"
            )
        return summary

    def _subscribe(self) -> LiveDecisions:
        url, _, api_key = self._service
        return LiveDecisions(url, True, _SLICE_S, api_key)

    def _reset(self) -> None:
        self.summary = LoopSummary()
        self._fovs: dict[Hashable, list[MDAEvent]] = {}
        self._by_frame: dict[int, Hashable] = {}
        self._unjudged: set[int] = set()
        self._revisits: deque[list[MDAEvent]] = deque()
        self._revisit_count = 0
        self._skipped_positions: set[Hashable] = set()
        self._skipped_fovs: set[Hashable] = set()
        self._decision_ids: set[UUID] = set()
        self._last_message_s = time.monotonic()

    def _events(self, plan: Iterable[MDAEvent]) -> Iterator[MDAEvent]:
        """Generate the events of the plan and of revisits, one at a time, for the engine."""
        last: Hashable = None
        for event in plan:
            key = fov_key(event)
            if key != last:  # between two fields of view, never between two channels of one
                if self._revisit_time == "next":
                    yield from self._revisit_events()
                if self._is_stopped():
                    return
            with self._changed:
                if key not in self._fovs and _stage_position(event) in self._skipped_positions:
                    self._skipped_fovs.add(key)
                    self.summary.skipped = len(self._skipped_fovs)
                    continue
                last = key
                events = self._fovs.setdefault(key, [])
                if any(event.channel == other.channel for other in events):
                    events.clear()  # the plan scans the same position again, under the same index
                events.append(event)
                self.summary.planned = len(self._fovs)
            yield event
        while self._wait_for_revisits():
            yield from self._revisit_events()
        self._is_stopped()

    def _revisit_events(self) -> Iterator[MDAEvent]:
        """Generate the events of the pending revisits."""
        while True:
            with self._changed:
                if self.summary.stopped_by is not None or not self._revisits:
                    return
                events = self._revisits.popleft()
                self.summary.revisited += 1
            yield from events

    def _is_stopped(self) -> bool:
        """Return whether a rule has stopped the run, and set the reason for which the series ends."""
        with self._changed:
            if self.summary.stopped_by is None:
                return False
            self._frames.end_reason = f"stopped by rule {self.summary.stopped_by}"
            return True

    def _wait_for_revisits(self) -> bool:
        """Wait until there are revisits; return False if there will be none."""
        with self._changed:
            self._last_message_s = time.monotonic()
            while self.summary.stopped_by is None and not self._revisits and self._unjudged:
                if self._runner is not None and not self._runner.is_running():
                    return False  # the run was cancelled
                left_s = self._last_message_s + self._patience_s - time.monotonic()
                if left_s <= 0:
                    self.summary.unanswered = len(self._unjudged)
                    _log.warning(
                        "%d fields of view were not judged within %g s; does the service run with --rules?",
                        len(self._unjudged),
                        self._patience_s,
                    )
                    return False
                self._changed.wait(min(left_s, _SLICE_S))
            return self.summary.stopped_by is None and bool(self._revisits)

    def _record_published(self, _: UUID, frame: int, event: MDAEvent) -> None:
        with self._changed:
            self._by_frame[frame] = fov_key(event)
            self._unjudged.add(frame)

    def _receive_decisions(self, live: LiveDecisions, finished: threading.Event) -> None:
        """Process the messages of the service until the run is finished."""
        while not finished.is_set():
            try:
                for message in live:
                    self._process(message)
                    if finished.is_set():
                        break
                else:
                    raise SenoscopeError("the service has stopped")
            except TimeoutError:
                continue
            except SenoscopeError as error:
                _log.warning("decisions are not received, trying again: %s", error)
                live.close()
                live = self._reconnect(finished) or live
        live.close()

    def _reconnect(self, finished: threading.Event) -> LiveDecisions | None:
        while not finished.wait(_RECONNECT_S):
            try:
                live = self._subscribe()
            except SenoscopeError:
                continue
            try:
                self._process_missed_decisions()
            except SenoscopeError as error:
                _log.warning("decisions that were missed cannot be read from the run log: %s", error)
            return live
        return None

    def _process_missed_decisions(self) -> None:
        """Process the decisions that were made without a connection, from the run log."""
        uid = self._frames.series_uid
        if uid is None:
            return
        with Client(*self._service, retries=NO_RETRIES) as client:
            judged = {result.source.frame for result in client.all_results(series=uid)}
            decisions = client.decisions(uid, limit=1000).decisions
        for decision in reversed(decisions):
            self._process(decision)
        with self._changed:
            self._unjudged -= {frame for frame in judged if frame is not None}
            self._changed.notify_all()

    def _process(self, message: Decision | Judged) -> None:
        with self._changed:
            if message.series_uid != self._frames.series_uid:
                return
            self._last_message_s = time.monotonic()
            if isinstance(message, Judged):
                self._unjudged.discard(message.frame)
            elif message.id not in self._decision_ids:
                self._decision_ids.add(message.id)
                self.summary.decisions.append(message)
                if not self._apply(message):
                    self.summary.ignored += 1
            self._changed.notify_all()

    def _apply(self, decision: Decision) -> bool:
        """Schedule the action of a decision; return whether it is carried out."""
        key = self._by_frame.get(decision.frame)
        if decision.dry_run or key is None:
            return False
        if decision.action == "stop":
            self.summary.stopped_by = self.summary.stopped_by or decision.rule
        elif decision.action == "skip":
            self._skipped_positions.add(_stage_position(self._fovs[_planned_key(key)][0]))
        else:
            if self._revisit_count >= self._max_revisits:
                _log.warning("a revisit is not carried out: max_revisits (%d) is reached", self._max_revisits)
                return False
            self._revisit_count += 1
            tag = ("revisit", self._revisit_count, _planned_key(key))
            self._revisits.append([_revisit_event(event, tag) for event in self._fovs[_planned_key(key)]])
        return True


def _revisit_event(event: MDAEvent, tag: tuple[str, int, Hashable]) -> MDAEvent:
    """Return a copy of an event for a revisit, without its planned time; the tag identifies the revisit."""
    return event.model_copy(update={"metadata": {**event.metadata, FOV_KEY: tag}, "min_start_time": None})


def _planned_key(key: Hashable) -> Hashable:
    """Return the key of the planned field of view, given its own key or that of a revisit."""
    return key[2] if isinstance(key, tuple) and len(key) == 3 and key[0] == "revisit" else key


def _stage_position(event: MDAEvent) -> Hashable:
    """Return the identity of the stage position of an event."""
    return event.index.get("p"), event.index.get("g"), event.x_pos, event.y_pos
