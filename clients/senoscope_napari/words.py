"""What people read in the widget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from senoscope_client.models.result import Flag, Result
from senoscope_client.tables import flag_words

NOT_FOR_SCIENCE = "not_for_science"


def stream_words(status: dict[str, Any]) -> str:
    """How it stands with the stream, out of the answer of ``GET /v1/stream``."""
    receiver = status.get("receiver")
    if receiver is None:
        return "The service listens to no microscope (senoscope serve --stream)."
    endpoint, known = receiver["endpoint"], receiver["series"]
    if not known:
        there = "is there; no series has begun" if receiver["connected"] else "is not there yet"
        return f"The microscope at {endpoint} {there}."
    series = known[0]
    planned = series["planned_frames"]
    frames = f"{series['received']} of {planned}" if planned is not None else str(series["received"])
    words = f"Series “{series['series_id']}” ({series['instrument']}) is {series['state']}: {frames} FOVs"
    lost = [
        f"{count} {what}"
        for count, what in ((series["missing"], "missing"), (status["live"]["dropped"], "dropped"))
        if count
    ]
    words += f", {' and '.join(lost)}." if lost else ", none lost."
    return words if receiver["connected"] else f"{words} The microscope has left {endpoint}."


def origin(result: Result) -> str:
    """Which field of view a result is of."""
    source = result.source
    frame = "" if source.frame is None else f"FOV {source.frame}"
    if source.kind == "stream":
        return f"{frame} of “{source.series_id}”"
    return f"{frame} of {source.file}" if source.file else f"{frame} of the posted stack"


def certainty(result: Result) -> str:
    """How sure the ensemble is."""
    networks = len(result.networks)
    agree = round(result.uncertainty.agreement * networks)
    return f"{agree} of {networks} networks agree\nentropy {result.uncertainty.entropy:.2f} bits"


def warning_of(result: Result) -> str:
    """That a result must not be taken for science; empty if it may."""
    flagged = any(flag.code == NOT_FOR_SCIENCE for flag in result.flags)
    return f"{result.model.name} ensemble, not for science" if flagged else ""


def other_flags(flags: Iterable[Flag]) -> str:
    """What else a reader should know, shortly."""
    return flag_words(flag for flag in flags if flag.code != NOT_FOR_SCIENCE)


def flags_in_full(flags: Iterable[Flag]) -> str:
    """All that the service says of a result, a line each."""
    return "\n".join(flag.message for flag in flags)
