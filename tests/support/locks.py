"""Locks between the processes of one test run, and between test runs."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock


def file_lock(path: Path) -> FileLock:
    """A lock on a file, held by one process at a time; others wait for as long as it takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)
