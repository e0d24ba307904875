"""Texts that the widget shows about results and about the stream."""

from __future__ import annotations

from collections.abc import Iterable

from senoscope_client.models.result import Flag, Result
from senoscope_client.models.status import StreamStatus
from senoscope_client.tables import flag_words

NOT_FOR_SCIENCE = "not_for_science"


def stream_text(status: StreamStatus) -> str:
    """Describe the state of the stream."""
    receiver = status.receiver
    if receiver is None:
        return "The service is not connected to a microscope (senoscope serve --stream)."
    if not receiver.series:
        state = "is connected; no series has begun" if receiver.connected else "is not connected yet"
        return f"The microscope at {receiver.endpoint} {state}."
    series = receiver.series[0]
    frames = str(series.received)
    if series.planned_frames is not None:
        frames += f" of {series.planned_frames}"
    text = f"Series “{series.series_id}” ({series.instrument}) is {series.state}: {frames} FOVs"
    losses = ((series.missing, "missing"), (status.live.dropped, "dropped"))
    lost = [f"{count} {reason}" for count, reason in losses if count]
    text += f", {' and '.join(lost)}." if lost else ", none lost."
    return text if receiver.connected else f"{text} The microscope at {receiver.endpoint} has disconnected."


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
