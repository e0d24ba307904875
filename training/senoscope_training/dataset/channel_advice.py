"""What follows from names that look as if each file held one channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from senoscope_training.config import DataConfig
from senoscope_training.dataset.channel_signs import Detected
from senoscope_training.dataset.faults import Fault
from senoscope_training.dataset.file_facts import FileFacts
from senoscope_training.dataset.pixels import GREY_REMEDY


def judge_names(
    detected: Detected, faults: list[Fault], read: Sequence[FileFacts], config: DataConfig
) -> tuple[list[Fault], list[Fault], tuple[str, ...]]:
    """What follows from names that look like one file per channel: faults as they are now, suspicions, notes.

    Grey images are never advised to be repeated then.
    """
    bare = sum(fault.kind == "grey" for fault in faults)
    grey = bare + sum(facts.grey for facts in read)
    if 2 * grey < bare + len(read) or not grey:  # files that hold all channels, whatever their names
        doubt = f"{detected.words}, yet each holds all channels: see that none is there twice"
        return faults, [], (doubt,) if detected.sure and detected.tokens else ()
    if "per-channel" in config.accept:
        return faults, [], (f"{detected.words}, which data.accept accepts",)
    setting = _setting(detected, config)
    if detected.sure:
        remedy = (
            f"{setting[0].upper()}{setting[1:]}, or, if each file is a field of view, set "
            "data.accept: [per-channel]"
        )
        others = [fault for fault in faults if fault.kind != "grey"]
        return others, [Fault("per-channel", str(config.path), detected.words, remedy)], ()
    remedy = (
        f"If its channels lie in files of their own ({', '.join(detected.example)}), {setting}; "
        "save all channels in one file otherwise, or, if each file is a field of view, set data.accept: "
        "[per-channel]"
    )
    changed = [
        replace(fault, remedy=remedy) if fault.kind == "grey" and fault.remedy == GREY_REMEDY else fault
        for fault in faults
    ]
    note = f"{detected.words}; if they are, {setting}"
    return changed, [], () if bare else (note,)


def _setting(detected: Detected, config: DataConfig) -> str:
    """What to set, with what data.channels has to do with it."""
    wanted, there = len(config.channels), len(detected.tokens)
    if there in (0, wanted):
        return detected.setting
    if there < wanted:
        return f"{detected.setting}, which must name {there} channels then (now {wanted})"
    return (
        f"{detected.setting}, which must name all {there} then, or to those that it names (now {wanted}), "
        "and move the other files away"
    )
