"""Files that hold secrets: they are created for their owner only, and rejected if others can read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def create_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read; never overwrite a file.

    Raises
    ------
    OSError
        If the file exists, or cannot be written.
    """
    # The mode is set on creation, so that others cannot open the file at any time.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def require_private(path: Path) -> os.stat_result:
    """Reject a file that others can read or change, else return its status.

    The mode is not checked on Windows, which has no such file modes.

    Raises
    ------
    OSError
        With the command that repairs the mode, or if there is no such file.
    """
    status = path.stat()
    if os.name == "posix" and status.st_mode & _OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise PermissionError(
            f"{path} holds secrets, but other users can open it ({mode:04o}): chmod 600 {path}"
        )
    return status
