"""What users depend on does not change by accident; after a change on purpose, run `support.public_api`."""

from __future__ import annotations

import difflib

from support.public_api import SNAPSHOT, as_text, public_api


def test_what_users_depend_on_is_as_before() -> None:
    before, now = SNAPSHOT.read_text(encoding="utf-8"), as_text(public_api())
    changes = difflib.unified_diff(before.splitlines(), now.splitlines(), "before", "now", lineterm="", n=1)
    assert "\n".join(changes) == ""
