"""Event-driven acquisition with pymmcore-plus: a planned scan, and what the service's decisions ask for."""

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
    """What a run did.

    Attributes
    ----------
    planned, revisited, skipped : int
        Fields of view: of the plan that were scanned, scanned again, and left out.
    published : int
        Fields of view that were sent to the service, revisits included.
    incomplete, failed : int
        Fields of view that were not sent: a channel never came; the images cannot be published.
    foreign : dict of str to int
        Images that were not sent because their channel is none of the publisher's, by the channel's name.
    stopped_by : str or None
        The rule that ended it.
    unanswered : int
        Fields of view that the service had not judged when there was no more patience.
    ignored : int
        Decisions that were not acted on: dry runs, and revisits beyond this side's own limit.
    decisions : list of Decision
        All that were told.
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
    """Runs a plan on pymmcore-plus' acquisition engine and acts on decisions while it runs.

    A decision names a frame; the stage only ever goes to where the plan sent it before. Nobody but this
    object decides whether to act: on dry runs it never does, and beyond ``max_revisits`` neither.

    Parameters
    ----------
    frames : MdaFrames
        Not connected; made with the publisher that the service subscribes to. Its ``on_published`` is taken.
    service_url : str
        Of the service that classifies and decides, such as ``http://127.0.0.1:8750``.
    api_key : str, optional
        Needed where the service asks for one.
    revisit : {"end", "next"}
        When places are scanned again: after the plan, or before the plan's next field of view.
    max_revisits : int
        In one run, whatever the service says.
    patience_s : float
        How long to wait, after the plan, for the service to judge what it was sent; counted anew from
        each of its answers.
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
        self.summary = LoopSummary()
        self._frames = frames
        self._service = (service_url, _TIMEOUT_S, api_key)
        self._when = revisit
        self._max_revisits = max_revisits
        self._patience_s = patience_s
        frames.on_published = self._published
        self._changed = threading.Condition(frames.lock)
        self._runner: MDARunner | None = None
        self._begin()

    def run(self, runner: MDARunner, plan: Iterable[MDAEvent]) -> LoopSummary:
        """Run a plan, and return when it and all that was decided on it is done.

        Parameters
        ----------
        runner : MDARunner
            Such as ``CMMCorePlus.instance().mda``; anybody may pause or cancel it meanwhile.
        plan : iterable of MDAEvent
            Such as an MDASequence.

        Raises
        ------
        SenoscopeError
            If the service cannot be reached before the run begins (later it is waited for); if the plan's
            presets cannot make up the publisher's channels; or, after the run, if images came and none of
            them could be published.
        """
        self._frames.require_channels(plan)
        self._begin()
        over = threading.Event()
        url, _, api_key = self._service
        live = LiveDecisions(url, True, _SLICE_S, api_key)
        listener = threading.Thread(target=self._listen, args=(live, over), name="decisions", daemon=True)
        listener.start()
        self._runner = runner
        self._frames.connect(runner)
        try:
            # An iterator, so that the engine asks for each event when it is due and merges none.
            runner.run(self._events(plan))
        finally:
            self._frames.disconnect()
            over.set()
            listener.join()
            self._count()
        summary = self.summary
        if not summary.published and (summary.foreign or summary.incomplete or summary.failed):
            raise SenoscopeError(
                "nothing was published: every field of view needs the channels "
                f"{', '.join(self._frames.channels)}; images came of other channels: "
                f"{', '.join(summary.foreign) or 'none'}; fields of view that lack a channel: "
                f"{summary.incomplete}, that cannot be published: {summary.failed} (the log says why)"
            )
        return summary

    def _count(self) -> None:
        frames = self._frames
        self.summary.published, self.summary.incomplete = frames.published, frames.incomplete
        self.summary.failed, self.summary.foreign = frames.failed, dict(frames.foreign)

    def _begin(self) -> None:
        self.summary = LoopSummary()
        self._fovs: dict[Hashable, list[MDAEvent]] = {}
        self._by_frame: dict[int, Hashable] = {}
        self._unanswered: set[int] = set()
        self._revisits: deque[list[MDAEvent]] = deque()
        self._asked_for = 0
        self._left_out: set[Hashable] = set()
        self._skipped: set[Hashable] = set()
        self._seen: set[UUID] = set()
        self._heard_s = time.monotonic()

    def _events(self, plan: Iterable[MDAEvent]) -> Iterator[MDAEvent]:
        """The plan's events, and those of revisits, one at a time; for the engine."""
        last: Hashable = None
        for event in plan:
            key = fov_key(event)
            if key != last:  # between two fields of view, never between two channels of one
                if self._when == "next":
                    yield from self._due()
                if self._stopped():
                    return
            with self._changed:
                if key not in self._fovs and _place(event) in self._left_out:
                    self._skipped.add(key)
                    self.summary.skipped = len(self._skipped)
                    continue
                last = key
                events = self._fovs.setdefault(key, [])
                if any(event.channel == other.channel for other in events):
                    events.clear()  # the plan comes to this place again, and does not say so
                events.append(event)
                self.summary.planned = len(self._fovs)
            yield event
        while self._more_to_come():
            yield from self._due()
        self._stopped()

    def _due(self) -> Iterator[MDAEvent]:
        """The events of the revisits that were asked for."""
        while True:
            with self._changed:
                if self.summary.stopped_by is not None or not self._revisits:
                    return
                events = self._revisits.popleft()
                self.summary.revisited += 1
            yield from events

    def _stopped(self) -> bool:
        with self._changed:
            if self.summary.stopped_by is None:
                return False
            self._frames.end_reason = f"stopped by rule {self.summary.stopped_by}"
            return True

    def _more_to_come(self) -> bool:
        """Wait until there are revisits; False if there will be none."""
        with self._changed:
            self._heard_s = time.monotonic()
            while self.summary.stopped_by is None and not self._revisits and self._unanswered:
                if self._runner is not None and not self._runner.is_running():
                    return False  # it was canceled
                left_s = self._heard_s + self._patience_s - time.monotonic()
                if left_s <= 0:
                    self.summary.unanswered = len(self._unanswered)
                    _log.warning(
                        "%d fields of view were not judged within %g s; does the service run with --rules?",
                        len(self._unanswered),
                        self._patience_s,
                    )
                    return False
                self._changed.wait(min(left_s, _SLICE_S))
            return self.summary.stopped_by is None and bool(self._revisits)

    def _published(self, _: UUID, frame: int, event: MDAEvent) -> None:
        with self._changed:
            self._by_frame[frame] = fov_key(event)
            self._unanswered.add(frame)

    def _listen(self, live: LiveDecisions, over: threading.Event) -> None:
        """Take in what the service decides, for as long as the run lasts."""
        while not over.is_set():
            try:
                for message in live:
                    self._take(message)
                    if over.is_set():
                        break
                else:
                    raise SenoscopeError("the service has stopped")
            except TimeoutError:
                continue
            except SenoscopeError as error:
                _log.warning("decisions are not heard, trying again: %s", error)
                live.close()
                live = self._listen_again(over) or live
        live.close()

    def _listen_again(self, over: threading.Event) -> LiveDecisions | None:
        url, _, api_key = self._service
        while not over.wait(_RECONNECT_S):
            try:
                live = LiveDecisions(url, True, _SLICE_S, api_key)
            except SenoscopeError:
                continue
            try:
                self._catch_up()
            except SenoscopeError as error:
                _log.warning("what was decided meanwhile cannot be asked for: %s", error)
            return live
        return None

    def _catch_up(self) -> None:
        """Take in what was decided while nobody listened, out of the run log."""
        uid = self._frames.series_uid
        if uid is None:
            return
        with Client(*self._service, retries=NO_RETRIES) as client:
            judged = {result.source.frame for result in client.all_results(series=uid)}
            decisions = client.decisions(uid, limit=1000).decisions
        for decision in reversed(decisions):
            self._take(decision)
        with self._changed:
            self._unanswered -= {frame for frame in judged if frame is not None}
            self._changed.notify_all()

    def _take(self, message: Decision | Judged) -> None:
        with self._changed:
            if message.series_uid != self._frames.series_uid:
                return
            self._heard_s = time.monotonic()
            if isinstance(message, Judged):
                self._unanswered.discard(message.frame)
            elif message.id not in self._seen:
                self._seen.add(message.id)
                self.summary.decisions.append(message)
                if not self._act(message):
                    self.summary.ignored += 1
            self._changed.notify_all()

    def _act(self, decision: Decision) -> bool:
        """Note what a decision asks for; whether it is to be done."""
        key = self._by_frame.get(decision.frame)
        if decision.dry_run or key is None:
            return False
        if decision.action == "stop":
            self.summary.stopped_by = self.summary.stopped_by or decision.rule
        elif decision.action == "skip":
            self._left_out.add(_place(self._fovs[_original(key)][0]))
        else:
            if self._asked_for >= self._max_revisits:
                _log.warning("a revisit is not done: max_revisits (%d) is reached", self._max_revisits)
                return False
            self._asked_for += 1
            tag = ("revisit", self._asked_for, _original(key))
            self._revisits.append([_once_more(event, tag) for event in self._fovs[_original(key)]])
        return True


def _once_more(event: MDAEvent, tag: tuple[str, int, Hashable]) -> MDAEvent:
    """An event to be done once more, now, and told apart from the first time."""
    return event.model_copy(update={"metadata": {**event.metadata, FOV_KEY: tag}, "min_start_time": None})


def _original(key: Hashable) -> Hashable:
    """The planned field of view, of which this may be a revisit."""
    return key[2] if isinstance(key, tuple) and len(key) == 3 and key[0] == "revisit" else key


def _place(event: MDAEvent) -> Hashable:
    """The stage position that an event is at."""
    return event.index.get("p"), event.index.get("g"), event.x_pos, event.y_pos
