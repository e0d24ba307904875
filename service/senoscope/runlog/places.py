"""The URL of the run log, as the setting gives it; imported without SQLAlchemy."""

from __future__ import annotations

from typing import Final

import platformdirs

from senoscope.runlog.dialects import DIALECTS

OFF: Final = "none"
_SCHEMES: Final = tuple(scheme for dialect in DIALECTS.values() for scheme in dialect.schemes)


def default_database_url(name: str = "runlog") -> str:
    """Return the URL of an SQLite file in the user's data folder."""
    folder = platformdirs.user_data_path("senoscope", appauthor=False)
    return f"sqlite:///{folder / f'{name}.sqlite3'}"


def checked_database_url(url: str) -> str:
    """Return the URL unchanged if it is a valid one of a run log.

    Raises
    ------
    ValueError
        If it is neither the URL of a supported database nor ``none``.
    """
    if url != OFF and (not url.startswith(_SCHEMES) or url in _SCHEMES):
        examples = " or ".join(dialect.example for dialect in DIALECTS.values())
        raise ValueError(
            f"not a valid URL of a run log; use for example {examples}, or none to turn the log off"
        )
    return url
