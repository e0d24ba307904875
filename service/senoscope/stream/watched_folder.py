"""A watched folder as a source of frames: each file is classified once, when it is complete.

The run log is the memory: what has a result there is not classified again, even if the service was killed.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from uuid import UUID, uuid5

import structlog

from senoscope.fov import Fov
from senoscope.results.delivery import Stack
from senoscope.runlog.entries import SeriesSnapshot
from senoscope.runlog.keeper import LogKeeper
from senoscope.runlog.session_lock import SessionLock
from senoscope.runlog.store import RunLog
from senoscope.settings import Settings
from senoscope.stream.folder_files import (
    FileState,
    in_natural_order,
    is_being_written,
    list_files,
    state_of,
)
from senoscope.watched_thread import WatchedThread
from senoscope_client.errors import (
    Busy,
    LogUnavailable,
    NotReady,
    PayloadTooLarge,
    SenoscopeError,
    UnreadableImage,
    UnsupportedMediaType,
)
from senoscope_client.images.axes import FovSpec
from senoscope_client.images.reader import OpenStack, open_fovs
from senoscope_client.models.base import OpenModel
from senoscope_client.models.result import Source
from senoscope_client.models.status import WatchedFileNotice, WatchStatus

_log = structlog.get_logger(__name__)
_NAMESPACE: Final = UUID("6f1c1f0e-5f0a-4c5e-9d5b-2a4f6b0c7d31")
# Fields of view that are read and queued together; a posted stack waits behind so many at most.
_PART: Final = 16
# A file that cannot be read, or not to its end, may be one whose writer pauses: it is complete, and reported,
# after this multiple of the time after which others are.
_PATIENCE: Final = 30
# After this, what failed for a reason that may have passed is tried again: the disk, or the engine.
_RETRY_S: Final = 60.0
# Listing a very large folder takes at most this share of the time.
_LISTING_SHARE: Final = 0.1
_WAKE_INTERVAL_S: Final = 0.2
_PAUSE_S: Final = 1.0
_MAX_PIXEL_BYTES: Final = 4
_MAX_NOTICES: Final = 20
_UNFINISHED: Final = (UnreadableImage, UnsupportedMediaType)


class EngineFailed(Exception):
    """The engine failed on the fields of view of a file."""


@dataclass(frozen=True)
class _Failure:
    """Why a file was not classified, and until when that holds for this ensemble; None: until it changes."""

    text: str
    spec: FovSpec
    until_s: float | None


class _Progress(OpenModel):
    """What the run log holds of a file: the series of its last state, and how many FOVs have results."""

    uid: UUID
    done: int
    fovs: int
    file: str


class WatchedFolder:
    """The files of a folder, each of them a series, with the thread that lists and reads them.

    Parameters
    ----------
    spec : callable
        Returns what the ensemble in use takes.
    require_room : callable
        Raises Busy or NotReady if so many fields of view cannot be queued now.
    submit : callable
        Queues fields of view of one file behind those of posted stacks; raises as ``require_room``.
    reserve : callable
        Returns a context manager that reserves so many bytes for pixels; raises Busy.
    log : LogKeeper
        Records which files are classified.
    """

    part: Final = "watch"
    saves_series: Final = True

    def __init__(
        self,
        settings: Settings,
        spec: Callable[[], FovSpec],
        require_room: Callable[[int], None],
        submit: Callable[[Sequence[Fov]], Stack],
        reserve: Callable[[int], AbstractContextManager[None]],
        log: LogKeeper,
    ) -> None:
        assert settings.watch is not None
        self._folder = settings.watch.absolute()
        self._instrument = settings.instrument or self._folder.name or str(self._folder)
        self._settings = settings
        self._spec = spec
        self._require_room = require_room
        self._submit = submit
        self._reserve = reserve
        self._log = log
        self._lock = SessionLock(log.log.database, f"watch {self._instrument}")
        self._since_s: dict[FileState, float] = {}  # when each state was first seen
        self._classified: set[FileState] = set()
        self._unfinished: set[FileState] = set()
        self._failures: dict[FileState, _Failure] = {}
        self._warnings: deque[WatchedFileNotice] = deque(maxlen=_MAX_NOTICES)
        self._reported: set[tuple[FileState, str]] = set()
        self._lost = 0  # results that the log had lost when the current file was opened
        self._incomplete = False  # whether more fields of view were planned than the current file holds
        self._counts: Counter[Literal["classified", "unreadable", "changed"]] = Counter()
        self._current: SeriesSnapshot | None = None
        self._problem: str | None = None
        self.thread = WatchedThread("watched folder", self._run, restarts=True)

    @property
    def problem(self) -> str | None:
        """Why no file is classified now, or None."""
        return self._problem

    def close(self) -> None:
        """Stop the thread; fields of view that it queued are computed, and the rest after the next start."""
        self.thread.stop()

    def status(self) -> WatchStatus:
        """Return state and counters."""
        # This is another thread: it copies what the folder's thread changes, and does not iterate over it.
        current, failures = self._current, self._failures.copy()
        return WatchStatus(
            folder=self._folder.name,
            waiting=max(0, len(self._since_s) - len(self._classified) - len(failures)),
            reading=None if current is None else current.series_id,
            classified=self._counts["classified"],
            unreadable=self._counts["unreadable"],
            changed=self._counts["changed"],
            failed=tuple(
                WatchedFileNotice(file=file.name, text=failure.text)
                for file, failure in [*failures.items()][-_MAX_NOTICES:]
            ),
            warnings=tuple(self._warnings.copy()),
            problem=self.problem,
        )

    def snapshots(self) -> list[SeriesSnapshot]:
        """Return the snapshot of the file that is being classified; the run log has all others."""
        current = self._current
        return [] if current is None else [current]

    def _run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                began_s = time.monotonic()
                files = self._complete_files()
                listed_s = time.monotonic() - began_s
                for file in files:
                    self._take(file, stop)
                    self._set_problem(None)
                    if stop.is_set():
                        return
                passed_s = time.monotonic() - began_s
                stop.wait(max(self._settings.watch_interval_s, listed_s / _LISTING_SHARE - passed_s))
        finally:
            self._lock.release()

    def _complete_files(self) -> list[FileState]:
        """List the folder, and return the files to be classified now, in natural order."""
        now_s = time.monotonic()
        try:
            listed = list(list_files(self._folder))
            self._list(listed, now_s)
            spec = self._spec()
            due = [file for file in listed if self._is_due(file, spec, now_s)]
            complete = [file for file in due if file.fault is None]
            for file in due:
                if file.fault is not None:
                    self._fail(file, _Failure(file.fault, spec, None))
            self._log.readable()
            if complete and not self._lock.acquire():
                raise LogUnavailable(
                    f"another service of the same run log watches a folder as {self._instrument!r}; "
                    "give each microscope a name with --instrument"
                )
            found = self._without_classified(complete)
        except OSError as error:
            self._set_problem(f"the watched folder {self._folder.name} cannot be read: {error.strerror}")
            return []
        except LogUnavailable as error:
            self._set_problem(f"files of the watched folder wait: {error}")
            return []
        self._set_problem(None)
        return in_natural_order(found)

    def _list(self, listed: Sequence[FileState], now_s: float) -> None:
        """Drop the state of files that changed or disappeared."""
        since_s, failures = self._since_s, self._failures
        self._since_s = {file: since_s.get(file, now_s) for file in listed}
        self._failures = {file: failure for file, failure in failures.items() if file in self._since_s}
        self._classified &= self._since_s.keys()
        self._unfinished &= self._since_s.keys()
        self._reported = {one for one in self._reported if one[0] in self._since_s}

    def _is_due(self, file: FileState, spec: FovSpec, now_s: float) -> bool:
        failure = self._failures.get(file)
        if file in self._classified:
            return False
        if failure is not None and failure.spec == spec:
            return failure.until_s is not None and now_s >= failure.until_s
        quiet_s = now_s - self._since_s[file]
        return quiet_s >= self._settings.watch_settle_s * (_PATIENCE if file in self._unfinished else 1)

    def _without_classified(self, files: Sequence[FileState]) -> list[FileState]:
        """Return the files that are not classified completely according to the run log."""
        keys = {file: self._key(file) for file in files}
        known = self._log.query(lambda log: log.get_values([*keys.values()]))
        found = []
        for file in files:
            value = known.get(keys[file])
            earlier = None if value is None else _Progress.model_validate(value)
            if earlier is not None and earlier.uid != self._series_uid(file):
                if self._is_new(file, "changed"):
                    self._counts["changed"] += 1
                self._warn(file, "it changed after it was classified, and is classified as a new series")
            elif earlier is not None and earlier.done == earlier.fovs:
                self._classified.add(file)
                continue
            found.append(file)
        return found

    def _take(self, file: FileState, stop: threading.Event) -> None:
        """Classify a file, and wait while that is not possible; or report why it cannot be classified."""
        path = self._folder / file.name
        spec = self._spec()
        while not stop.is_set():
            try:
                if state_of(self._folder, file.name) == file and not is_being_written(path):
                    self._classify(file, path, stop)
                return
            except Busy as error:
                stop.wait(error.retry_after_s)
            except (NotReady, LogUnavailable) as error:
                self._set_problem(f"files of the watched folder wait: {error}")
                # What the replaced ensemble computed of this file is in the log before it is read again.
                stop.wait(_PAUSE_S)
                spec = self._spec()
            except FileNotFoundError:
                return
            except SenoscopeError as error:
                if isinstance(error, _UNFINISHED) and file not in self._unfinished:
                    self._unfinished.add(file)
                else:
                    self._fail(file, _Failure(_with_options(str(error)), spec, None))
                return
            except Exception as error:  # the other files do not wait for this one
                text = str(error)
                if isinstance(error, OSError) and error.strerror:
                    text = f"it cannot be read: {error.strerror}"
                elif not isinstance(error, EngineFailed):
                    _log.exception("watched file failed", file=file.name)
                    text = f"reading it failed ({type(error).__name__}); see the service's log"
                self._fail(file, _Failure(text, spec, time.monotonic() + _RETRY_S))
                return
            finally:
                self._current = None

    def _classify(self, file: FileState, path: Path, stop: threading.Event) -> None:
        """Classify the fields of view of a file that have no result."""
        settings, spec, uid = self._settings, self._spec(), self._series_uid(file)
        axes = settings.watch_axes or None
        channels = settings.watch_channels.split(",") if settings.watch_channels else None
        self._require_room(1)
        self._lost = self._log.status().lost
        with open_fovs(path, spec, axes=axes, channels=channels, name=file.name) as stack:
            self._incomplete = any(one.code == "incomplete" for one in stack.notices)
            if self._incomplete and file not in self._unfinished:
                self._unfinished.add(file)
                return
            if stack.bytes_at_once > settings.image_limits.max_decoded_bytes:
                raise PayloadTooLarge(
                    f"{file.name} can only be decoded as a whole, to {stack.bytes_at_once >> 20} MiB, more "
                    f"than --max-decoded-mib ({settings.max_decoded_mib} MiB); split it"
                )
            for warning in stack.warnings:
                self._warn(file, _with_options(warning))
            missing = self._without_result(file, uid, len(stack))
            self._note_progress(file, uid, len(stack) - len(missing), len(stack))
            fov_bytes = len(spec.channels) * spec.height * spec.width * _MAX_PIXEL_BYTES
            with self._reserve(stack.bytes_at_once + min(len(missing), _PART) * fov_bytes):
                for first in range(0, len(missing), _PART):
                    numbers = missing[first : first + _PART]
                    fovs = [Fov(stack.read(n), self._source(file, uid, stack, n), spec=spec) for n in numbers]
                    # What was read while a program wrote it is not classified.
                    if state_of(self._folder, file.name) != file:
                        if done := len(stack) - len(missing) + first:
                            had = f"{done} of {len(stack)} fields of view had results"
                            self._warn(file, f"it changed or disappeared when {had}")
                        return
                    if stop.is_set() or not self._compute(fovs, stop):
                        return
                    done = missing[first + _PART] if first + _PART < len(missing) else len(stack)
                    if done < len(stack) and not self._save(file, uid, done, len(stack), stop):
                        return
            if self._save(file, uid, len(stack), len(stack), stop):
                self._classified.add(file)
                self._failures.pop(file, None)
                self._counts["classified"] += 1
                _log.info("file classified", file=file.name, fovs=len(stack), series_uid=str(uid))

    def _without_result(self, file: FileState, uid: UUID, fovs: int) -> list[int]:
        """Return the numbers of fields of view that have no result, in their order."""
        value = self._log.query(lambda log: log.get_value(self._key(file)))
        progress = None if value is None else _Progress.model_validate(value)
        # Of these, old results may have been deleted.
        done = progress.done if progress is not None and progress.uid == uid else 0
        logged = self._log.query(lambda log: log.frames_of(uid))
        return [n for n in range(done, fovs) if n not in logged]

    def _compute(self, fovs: Sequence[Fov], stop: threading.Event) -> bool:
        """Wait for the results of fields of view; False if the service stops before."""
        done = self._submit(fovs).done
        while not wait([done], _WAKE_INTERVAL_S).done:
            if stop.is_set():
                return False
        error = done.exception()
        if isinstance(error, SenoscopeError):
            raise error
        if error is not None:
            raise EngineFailed(f"the engine failed on it: {type(error).__name__}") from error
        return True

    def _save(self, file: FileState, uid: UUID, done: int, fovs: int, stop: threading.Event) -> bool:
        """Record in the run log that the first ``done`` fields of view have results; False if it stops."""
        series = self._note_progress(file, uid, done, fovs)

        def write(log: RunLog) -> None:
            log.save_series([series])
            progress = _Progress(uid=uid, done=done, fovs=fovs, file=file.name)
            log.set_value(self._key(file), progress.model_dump(mode="json"))

        # Results that wait in memory for the log come first. Of a file whose results may be among those that
        # the log lost, the missing ones are computed again.
        while not stop.is_set():
            if self._log.problem is None:
                if self._log.status().lost != self._lost:
                    return False
                if self._log.try_write(write):
                    return True
            stop.wait(_WAKE_INTERVAL_S)
        return False

    def _note_progress(self, file: FileState, uid: UUID, done: int, fovs: int) -> SeriesSnapshot:
        reason = "incomplete" if self._incomplete else "completed"
        self._current = SeriesSnapshot(
            kind="file",
            series_uid=uid,
            series_id=file.name,
            instrument=self._instrument,
            last_frame=done - 1 if done else None,
            state="ended" if done == fovs else "open",
            planned_frames=fovs,
            first_frame=0 if done else None,
            received=done,
            missing=0,
            repeated=0,
            restarts=0,
            end_reason=reason if done == fovs else None,
        )
        return self._current

    def _source(self, file: FileState, uid: UUID, stack: OpenStack, n: int) -> Source:
        return Source(
            kind="file",
            instrument=self._instrument,
            series_id=file.name,
            series_uid=uid,
            frame=n,
            position_um=stack.position_um(n),
            pixel_size_um=stack.pixel_size_um(n),
            file=file.name.rpartition("/")[2],
        )

    def _series_uid(self, file: FileState) -> UUID:
        return self._uuid(file.name, file.size, file.mtime_ns)

    def _key(self, file: FileState) -> str:
        return f"watched file {self._uuid(file.name)}"

    def _uuid(self, *facts: object) -> UUID:
        return uuid5(_NAMESPACE, "\n".join(map(str, (self._instrument, *facts))))

    def _is_new(self, file: FileState, text: str) -> bool:
        """Return whether something is reported for the first time of a file in this state."""
        new = (file, text) not in self._reported
        self._reported.add((file, text))
        return new

    def _warn(self, file: FileState, text: str) -> None:
        if self._is_new(file, text):
            self._warnings.append(WatchedFileNotice(file=file.name, text=text))
            _log.warning("watched file", file=file.name, warning=text)

    def _fail(self, file: FileState, failure: _Failure) -> None:
        self._failures[file] = failure
        if self._is_new(file, failure.text):
            self._counts["unreadable"] += 1
            _log.warning("watched file not classified", file=file.name, reason=failure.text)

    def _set_problem(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            _log.warning("watched folder", problem=problem)
        elif problem is None and self._problem is not None:
            _log.info("watched folder works again", folder=self._folder.name)
        self._problem = problem


def _with_options(text: str) -> str:
    """Name the options of the service in advice that names the parameters of a request."""
    return re.sub(r"\b(axes|channels)= ?", r"--watch-\1 ", text)
