"""The API keys of a running service."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import structlog

from senoscope.access.api_keys import ApiKey, find_key, hash_of, read_keys

_log = structlog.get_logger(__name__)


class KeyRing:
    """The keys that open a running service.

    Parameters
    ----------
    path : Path, optional
        Keys file, read again whenever it changes. One that has become unreadable opens nothing.
    master : str, optional
        One more key, with all scopes.

    Raises
    ------
    OSError
        If the file cannot be read.
    """

    def __init__(self, path: Path | None, master: str | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._fixed: tuple[ApiKey, ...] = ()
        if master is not None:
            self._fixed = (
                ApiKey(
                    name="SENOSCOPE_API_KEY",
                    sha256=hash_of(master),
                    scopes=("admin",),
                    created=datetime.now(UTC),
                ),
            )
        self._seen = self._state()
        self._filed = () if path is None else read_keys(path)

    def identify(self, presented: str) -> ApiKey | None:
        """The key that was presented, or None."""
        return find_key(self._fixed + self._current(), presented)

    def _current(self) -> tuple[ApiKey, ...]:
        if self._path is None:
            return ()
        with self._lock:
            state = self._state()
            if state != self._seen:
                self._seen = state
                try:
                    self._filed = read_keys(self._path)
                    _log.info("API keys read again", keys=[key.name for key in self._filed])
                except OSError as error:
                    self._filed = ()
                    _log.error("API keys are refused until their file can be read", reason=str(error))
            return self._filed

    def _state(self) -> tuple[int, ...] | None:
        """What changes when the file does."""
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_mode
