"""The API keys of a running service."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import structlog

from senoscope.access.api_keys import ApiKey, find_key, hash_of, read_keys

_log = structlog.get_logger(__name__)


class KeyRing:
    """The keys that a running service accepts.

    Parameters
    ----------
    path : Path, optional
        File of API keys, reloaded when it changes. While it is unreadable, none of its keys is accepted.
    master : str, optional
        Another key, with all scopes.

    Raises
    ------
    OSError
        If the file cannot be read.
    """

    def __init__(self, path: Path | None, master: str | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._from_settings: tuple[ApiKey, ...] = ()
        if master is not None:
            self._from_settings = (
                ApiKey(
                    name="SENOSCOPE_API_KEY",
                    sha256=hash_of(master),
                    scopes=("admin",),
                    created=datetime.now(UTC),
                ),
            )
        self._file_state = self._read_file_state()
        self._from_file = () if path is None else read_keys(path)

    def identify(self, presented: str) -> ApiKey | None:
        """Return the entry of a presented key, or None."""
        return find_key(self._from_settings + self._current(), presented)

    def _current(self) -> tuple[ApiKey, ...]:
        if self._path is None:
            return ()
        with self._lock:
            state = self._read_file_state()
            if state != self._file_state:
                self._file_state = state
                try:
                    self._from_file = read_keys(self._path)
                    _log.info("API keys reloaded", keys=[key.name for key in self._from_file])
                except OSError as error:
                    self._from_file = ()
                    _log.error("API keys are refused: their file cannot be read", reason=str(error))
            return self._from_file

    def _read_file_state(self) -> tuple[int, ...] | None:
        """Return metadata that changes with the file, or None if it is missing."""
        if self._path is None:
            return None
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_mode
