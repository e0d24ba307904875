"""What people read in the widget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from senoscope_client.result import Flag, Result

NOT_FOR_SCIENCE = "not_for_science"


def stream_words(status: dict[str, Any]) -> str:
    """How it stands with the stream, out of the answer of ``GET /v1/stream``."""
    receiver = status.get("receiver")
    if receiver is None:
        return "The service listens to no microscope (senoscope serve --stream)."
    if not receiver["connected"]:
        return f"No microscope publishes at {receiver['endpoint']} yet."
    if not receiver["series"]:
        return f"The microscope at {receiver['endpoint']} is there; no series has begun."
    series = receiver["series"][0]
    planned = series["planned_frames"]
    frames = f"{series['received']} of {planned}" if planned is not None else str(series["received"])
    words = f"Series “{series['series_id']}” ({series['instrument']}) is {series['state']}: {frames} FOVs"
    lost = [
        f"{count} {what}"
        for count, what in ((series["missing"], "missing"), (status["live"]["dropped"], "dropped"))
        if count
    ]
    return f"{words}, {' and '.join(lost)}." if lost else f"{words}, none lost."


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
    return f"{agree} of {networks} networks agree · entropy {result.uncertainty.entropy:.2f} bits"


def warning_of(result: Result) -> str:
    """That a result must not be taken for science; empty if it may."""
    told = next((flag.message for flag in result.flags if flag.code == NOT_FOR_SCIENCE), None)
    return "" if told is None else f"{result.model.name} ensemble, NOT FOR SCIENCE: {told}"


def other_flags(flags: Iterable[Flag]) -> str:
    """What else a reader should know, a line each."""
    return "\n".join(flag.message for flag in flags if flag.code != NOT_FOR_SCIENCE)
