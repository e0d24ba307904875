"""Faults of a data set, one per file and kind, and their text."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MAX_LISTED = 20  # faults of one kind

TITLES: dict[str, str] = {
    "table": "dataset.csv cannot be read",
    "folder": "no fields of view",
    "outside": "paths outside of the folder",
    "missing": "missing files",
    "repeated": "files that are listed twice",
    "label": "unknown labels",
    "split": "missing or invalid splits",
    "group-in-both": "groups in training and in test",
    "kind": "unsupported file formats",
    "per-channel": "one file per channel",
    "corrupt": "files that cannot be read",
    "axes": "files with unknown axes or channels",
    "several": "files with several fields of view",
    "channels": "files with the wrong number of channels",
    "grey": "grey images",
    "channel-names": "channel names that differ between files",
    "types": "data types that differ between the classes",
    "zero-level": "zero levels that differ between files",
    "size": "fields of view of the wrong size",
    "pixels": "pixels that are NaN or infinite",
    "contradiction": "identical images with different labels",
    "class": "classes without fields of view",
}
"""Titles of the kinds of faults, in the order in which they are listed."""


@dataclass(frozen=True)
class Fault:
    """A fault of a data set."""

    kind: str
    """A key of `TITLES`."""
    file: str
    """The folder, the file, or the row of the table that has the fault."""
    problem: str
    remedy: str
    """Advice on how to correct it."""

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}. {self.remedy}"


def sort_faults(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Sort faults by kind, then by file."""
    kinds = list(TITLES)
    return tuple(sorted(faults, key=lambda fault: (kinds.index(fault.kind), natural_key(fault.file))))


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key that puts 2 before 10."""
    parts = (part for part in re.split(r"(\d+)", name.casefold()) if part)
    return (*((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts), (2, 0, name))


def format_faults(faults: Sequence[Fault]) -> str:
    """Return faults as text, grouped by kind; list 20 of each kind, and count the others."""
    lines: list[str] = []
    for kind, title in TITLES.items():
        some = [fault for fault in faults if fault.kind == kind]
        if not some:
            continue
        lines.append(f"{title} ({len(some)}):")
        lines += [f"  {fault}" for fault in some[:_MAX_LISTED]]
        if len(some) > _MAX_LISTED:
            lines.append(f"  and {len(some) - _MAX_LISTED} more")
    return "\n".join(lines)


def and_more(files: Sequence[str], kind: str = "") -> str:
    """Return the first file, with the number of the others of that kind."""
    return f"{files[0]} and {len(files) - 1} more {kind}".rstrip() if len(files) > 1 else files[0]


def suggest(word: str, allowed: Sequence[str]) -> str:
    """Return `` (did you mean x?)`` for the most similar allowed word, or nothing if none is similar."""
    plain = {choice.casefold(): choice for choice in allowed}
    found = difflib.get_close_matches(word.strip().casefold(), list(plain), n=1, cutoff=0.5)
    return f" (did you mean {plain[found[0]]!r}?)" if found else ""
