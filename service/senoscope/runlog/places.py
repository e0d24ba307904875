"""Where the run log is, as a setting names it."""

from __future__ import annotations

from typing import Final

import platformdirs

OFF: Final = "none"
_SCHEMES: Final = ("sqlite:///", "postgresql://", "postgresql+psycopg://")


def default_database_url(name: str = "runlog") -> str:
    """An SQLite file of that name in the user's data folder."""
    folder = platformdirs.user_data_path("senoscope", appauthor=False)
    return f"sqlite:///{folder / f'{name}.sqlite3'}"


def checked_database_url(url: str) -> str:
    """The address as it was given, if it is one of a run log.

    Raises
    ------
    ValueError
        If it is neither of a database that the run log can use, nor ``none``.
    """
    if url != OFF and (not url.startswith(_SCHEMES) or url in _SCHEMES):
        raise ValueError(
            "this is no address of a run log; one looks like sqlite:////data/runlog.sqlite3 or "
            "postgresql://user:password@host/database, and none turns the log off"
        )
    return url
