"""Texts that the widget shows about results and about the stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from senoscope_client.models.result import Flag, Result
from senoscope_client.tables import flag_words

NOT_FOR_SCIENCE = "not_for_science"


def stream_text(status: dict[str, Any]) -> str:
    """Describe the state of the stream, from the response of ``GET /v1/stream``."""
    receiver = status.get("receiver")
    if receiver is None:
        return "The service is not connected to a microscope (senoscope serve --stream)."
    endpoint, all_series = receiver["endpoint"], receiver["series"]
    if not all_series:
        state = "is connected; no series has begun" if receiver["connected"] else "is not connected yet"
        return f"The microscope at {endpoint} {state}."
    series = all_series[0]
    planned = series["planned_frames"]
    frames = f"{series['received']} of {planned}" if planned is not None else str(series["received"])
    text = f"Series “{series['series_id']}” ({series['instrument']}) is {series['state']}: {frames} FOVs"
    lost = [
        f"{count} {reason}"
        for count, reason in ((series["missing"], "missing"), (status["live"]["dropped"], "dropped"))
        if count
    ]
    text += f", {' and '.join(lost)}." if lost else ", none lost."
    return text if receiver["connected"] else f"{text} The microscope at {endpoint} has disconnected."


def origin_text(result: Result) -> str:
    """Return which field of view a result is of."""
    source = result.source
    frame = "" if source.frame is None else f"FOV {source.frame}"
    if source.kind == "stream":
        return f"{frame} of “{source.series_id}”"
    return f"{frame} of {source.file}" if source.file else f"{frame} of the posted stack"


def certainty_text(result: Result) -> str:
    """Return the agreement of the networks and the entropy."""
    networks = len(result.networks)
    agree = round(result.uncertainty.agreement * networks)
    return f"{agree} of {networks} networks agree\nentropy {result.uncertainty.entropy:.2f} bits"


def science_warning(result: Result) -> str:
    """Return the warning about an ensemble that is not for science; empty if there is none."""
    flagged = any(flag.code == NOT_FOR_SCIENCE for flag in result.flags)
    return f"{result.model.name} ensemble, not for science" if flagged else ""


def other_flags_text(flags: Iterable[Flag]) -> str:
    """Return all flags except `science_warning` in short form."""
    return flag_words(flag for flag in flags if flag.code != NOT_FOR_SCIENCE)


def flag_messages(flags: Iterable[Flag]) -> str:
    """Return the messages of all flags, one per line."""
    return "\n".join(flag.message for flag in flags)
