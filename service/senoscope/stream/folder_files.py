"""Image files of a watched folder: which there are, and whether one is still being written."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from senoscope_client.images.folders import READ_SUFFIXES, naturally_sorted

_SUFFIXES: Final = tuple(READ_SUFFIXES)
_SKIPPED: Final = (".", "~")  # hidden files, macOS metadata (._NAME), and temporary files of editors


class FileState(NamedTuple):
    """A file as it is now, by its path in the folder (with ``/``); every change makes another state.

    Attributes
    ----------
    fault : str or None
        Why it cannot be opened. The others are 0 then, and bytes of the name that are no text are escaped.
    """

    name: str
    size: int
    mtime_ns: int
    fault: str | None = None


def _as_text(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")


def state_of(folder: Path, name: str) -> FileState | None:
    """Return the state of a file, or None if there is none."""
    if _as_text(name) != name:
        return FileState(_as_text(name), 0, 0, "its name is not valid UTF-8; rename it")
    try:
        status = (folder / name).stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not (folder / name).is_symlink():
            return None
        return FileState(name, 0, 0, f"it cannot be reached: {error.strerror}")
    if not stat.S_ISREG(status.st_mode):
        return FileState(name, 0, 0, "it is not a regular file")
    return FileState(name, status.st_size, status.st_mtime_ns)


def list_files(folder: Path) -> Iterator[FileState]:
    """Yield the TIFF and NPY files of a folder and its sub-folders, and the sub-folders that cannot be read.

    Links to folders are not followed.

    Raises
    ------
    OSError
        If the folder itself cannot be read.
    """
    unreadable: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        folders[:] = [name for name in folders if not name.startswith(_SKIPPED)]
        below = Path(parent).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        for name in names:
            # The archive of a service names its unfinished files NAME.partial.ome.tif.
            if name.startswith(_SKIPPED) or ".partial." in name:
                continue
            if name.lower().endswith(_SUFFIXES):
                state = state_of(folder, prefix + name)
                if state is not None:
                    yield state
    for error in unreadable:
        unread = Path(error.filename).relative_to(folder).as_posix()
        if unread == ".":
            raise error
        yield FileState(_as_text(unread), 0, 0, f"the folder cannot be read: {error.strerror}")


def in_natural_order(files: Iterable[FileState]) -> list[FileState]:
    """Sort files by their paths in natural order: 2 before 10."""
    by_path = {Path(file.name): file for file in files}
    return [by_path[path] for path in naturally_sorted(by_path)]


if sys.platform == "win32":
    import ctypes

    _READ, _SHARE_READ, _OPEN_EXISTING, _SHARING_VIOLATION = 0x80000000, 1, 3, 32

    def is_being_written(path: Path) -> bool:
        """Return whether a program has a file open for writing."""
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateFileW.restype = ctypes.c_void_p
        handle = kernel.CreateFileW(str(path), _READ, _SHARE_READ, None, _OPEN_EXISTING, 0, None)
        if handle == ctypes.c_void_p(-1).value:
            return ctypes.get_last_error() == _SHARING_VIOLATION
        kernel.CloseHandle(ctypes.c_void_p(handle))
        return False

else:
    import fcntl

    def is_being_written(path: Path) -> bool:
        """Return whether a program has a file open for writing; only Linux can answer, for local disks."""
        if not hasattr(fcntl, "F_SETLEASE"):
            return False
        with path.open("rb") as file:
            # If a program opens the file during the lease, this process is sent a signal. The default, SIGIO,
            # would end it.
            fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
            try:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            except BlockingIOError:
                return True
            except OSError:  # a network share, or the file of another user
                return False
        return False
