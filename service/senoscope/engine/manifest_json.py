"""Parsing of JSON whose values can safely be sent, logged and stored."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_MAX_DEPTH: Final = 32
# Control characters, and unpaired surrogates.
_FORBIDDEN_CHARACTERS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def parse_json(text: bytes) -> Any:
    """Parse JSON.

    Raises
    ------
    ValueError, RecursionError
        If it is not JSON, is nested too deeply, or contains a control character, an unpaired surrogate, NaN,
        an infinity, or an integer of more than 63 bits.
    """
    document = json.loads(text, parse_constant=_refuse_constant)
    _check_value(document, "", 0)
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number in JSON")


def _check_value(value: Any, location: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"{location[:80]} is nested too deeply")
    if isinstance(value, str):
        if _FORBIDDEN_CHARACTERS.search(value):
            raise ValueError(
                f"{location[:80] or 'a key'} contains a control character or an unpaired surrogate"
            )
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_value(key, "", depth)
            _check_value(inner, f"{location}.{key}".strip("."), depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_value(inner, location, depth + 1)
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"{location[:80]} is a number of more than 63 bits")
