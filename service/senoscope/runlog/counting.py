"""Database triggers that count results, so that counting needs no scan."""

from __future__ import annotations

from typing import Final

BIN_SQL: Final = "CAST(probability * 16 AS INTEGER)"
"""The bin of a probability. SQLite truncates, PostgreSQL rounds; both give 0 to 16, rising with it."""

NIL: Final = "00000000-0000-0000-0000-000000000000"

_KEY: Final = "series_uid, kind, label, bin"
_COUNT_ONE: Final = (
    f"INSERT INTO result_counts ({_KEY}, count) SELECT {{uid}}, new.kind, new.label, "
    "CAST(new.probability * 16 AS INTEGER), 1 WHERE {uid} IS NOT NULL "
    f"ON CONFLICT ({_KEY}) DO UPDATE SET count = result_counts.count + 1;"
)
_MATCHES_OLD: Final = (
    "series_uid IN ({nil}, old.series_uid) AND kind = old.kind AND label = old.label "
    "AND bin = CAST(old.probability * 16 AS INTEGER)"
)
_DISCOUNT_ONE: Final = (
    f"UPDATE result_counts SET count = count - 1 WHERE {_MATCHES_OLD}; "  # noqa: S608
    f"DELETE FROM result_counts WHERE {_MATCHES_OLD} AND count <= 0;"
)


def _bodies(nil: str) -> tuple[str, str]:
    """Return the statements for an added result, and those for a deleted one."""
    added = f"{_COUNT_ONE.format(uid=nil)} {_COUNT_ONE.format(uid='new.series_uid')}"
    return added, _DISCOUNT_ONE.format(nil=nil)


_SQLITE_ADDED, _SQLITE_DELETED = _bodies(f"'{NIL.replace('-', '')}'")
_POSTGRES_ADDED, _POSTGRES_DELETED = _bodies(f"CAST('{NIL}' AS uuid)")

COUNTING: Final[dict[str, tuple[str, ...]]] = {
    "sqlite": (
        f"CREATE TRIGGER result_added AFTER INSERT ON results BEGIN {_SQLITE_ADDED} END",
        f"CREATE TRIGGER result_deleted AFTER DELETE ON results BEGIN {_SQLITE_DELETED} END",
    ),
    "postgresql": (
        "CREATE FUNCTION senoscope_result_added() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {_POSTGRES_ADDED} RETURN NULL; END $$",
        "CREATE FUNCTION senoscope_result_deleted() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {_POSTGRES_DELETED} RETURN NULL; END $$",
        "CREATE TRIGGER result_added AFTER INSERT ON results FOR EACH ROW "
        "EXECUTE FUNCTION senoscope_result_added()",
        "CREATE TRIGGER result_deleted AFTER DELETE ON results FOR EACH ROW "
        "EXECUTE FUNCTION senoscope_result_deleted()",
    ),
}
"""By dialect, the statements that create the triggers and their functions. Changing one needs a migration."""
