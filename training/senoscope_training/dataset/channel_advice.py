"""Faults and advice for data sets whose names look like one file per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from senoscope_training.config import DataConfig
from senoscope_training.dataset.channel_detection import PerChannelNames
from senoscope_training.dataset.faults import Fault
from senoscope_training.dataset.file_facts import FileFacts
from senoscope_training.dataset.pixels import GREY_REMEDY


def judge_names(
    detected: PerChannelNames, faults: list[Fault], read: Sequence[FileFacts], config: DataConfig
) -> tuple[list[Fault], list[Fault], tuple[str, ...]]:
    """Decide what to report for a data set whose names look like one file per channel.

    The advice to repeat grey images is replaced by advice on data.per_channel.
    Return the faults with changed advice, those that data.accept can accept, and notes.
    """
    refused = sum(fault.kind == "grey" for fault in faults)
    grey = refused + sum(facts.grey for facts in read)
    if 2 * grey < refused + len(read) or not grey:  # the files contain all channels, despite their names
        note = (
            f"{detected.description}, but each contains all channels: check that no image is there more than "
            "once"
        )
        return faults, [], (note,) if detected.is_certain and detected.tokens else ()
    if "per-channel" in config.accept:
        return faults, [], (f"{detected.description}, which data.accept accepts",)
    setting = _setting(detected, config)
    if detected.is_certain:
        remedy = (
            f"{setting[0].upper()}{setting[1:]}, or, if each file is a field of view, set "
            "data.accept: [per-channel]"
        )
        others = [fault for fault in faults if fault.kind != "grey"]
        return others, [Fault("per-channel", str(config.path), detected.description, remedy)], ()
    remedy = (
        f"If there is one file per channel ({', '.join(detected.example)}), {setting}; otherwise save all "
        "channels in one file, or, if each file is a field of view, set data.accept: [per-channel]"
    )
    changed = [
        replace(fault, remedy=remedy) if fault.kind == "grey" and fault.remedy == GREY_REMEDY else fault
        for fault in faults
    ]
    note = f"{detected.description}; if this is right, {setting}"
    return changed, [], () if refused else (note,)


def _setting(detected: PerChannelNames, config: DataConfig) -> str:
    """Return the advice for data.per_channel, and for data.channels if their numbers differ."""
    wanted, found = len(config.channels), len(detected.tokens)
    if found in (0, wanted):
        return detected.setting
    if found < wanted:
        return f"{detected.setting}, which must then have {found} channels (now {wanted})"
    return (
        f"{detected.setting}, which must then have all {found} channels, or to the parts of its {wanted} "
        "channels, and move the other files away"
    )
