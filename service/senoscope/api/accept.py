"""Content negotiation: whether a client prefers CSV to JSON."""

from __future__ import annotations


def wants_csv(accept: str) -> bool:
    """Return whether an ``Accept`` header names CSV, with at least the quality of JSON.

    Quality values are those of RFC 9110, section 12.5.1.
    """
    qualities = {}
    for part in accept.lower().split(","):
        kind, *parameters = (text.strip() for text in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            qualities[kind] = float(quality)
        except ValueError:
            qualities[kind] = 0.0
    csv, json = qualities.get("text/csv", 0.0), qualities.get("application/json", 0.0)
    return csv > 0 and csv >= json
