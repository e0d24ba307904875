"""What is wrong with a data set: one fault per file and kind, told together."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MOST = 20  # of one kind that are told one by one

TITLES: dict[str, str] = {
    "table": "dataset.csv cannot be read",
    "folder": "no fields of view",
    "outside": "paths that leave the folder",
    "missing": "files that are not there",
    "repeated": "files that are listed twice",
    "label": "unknown labels",
    "split": "splits that are not told, or told wrongly",
    "group-in-both": "groups that are in training and test",
    "kind": "files of a kind that is not read",
    "per-channel": "channels in files of their own",
    "corrupt": "files that cannot be read",
    "axes": "files that do not tell their axes or channels",
    "several": "files with several fields of view",
    "channels": "files with another number of channels",
    "grey": "grey images",
    "channel-names": "channel names that differ from file to file",
    "types": "types of numbers that follow the class",
    "zero-level": "zero levels that are far apart",
    "size": "fields of view of another size",
    "pixels": "pixels that are no numbers",
    "contradiction": "the same image with different labels",
    "class": "classes without a field of view",
}
"""Kinds of faults, in the order in which they are told."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes
    ----------
    kind : str
        A key of `TITLES`.
    file : str
        Where; a folder, a file, or a row of the table.
    problem : str
        What is wrong.
    remedy : str
        What to do.
    """

    kind: str
    file: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.problem}. {self.remedy}"


def ordered(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Faults by kind, then by file."""
    kinds = list(TITLES)
    return tuple(sorted(faults, key=lambda fault: (kinds.index(fault.kind), natural(fault.file))))


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts 2 before 10."""
    parts = (part for part in re.split(r"(\d+)", name.casefold()) if part)
    return (*((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts), (2, 0, name))


def told(faults: Sequence[Fault]) -> str:
    """All faults as text, grouped by kind; those beyond the twentieth of a kind are counted."""
    lines: list[str] = []
    for kind, title in TITLES.items():
        some = [fault for fault in faults if fault.kind == kind]
        if not some:
            continue
        lines.append(f"{title} ({len(some)}):")
        lines += [f"  {fault}" for fault in some[:_MOST]]
        if len(some) > _MOST:
            lines.append(f"  and {len(some) - _MOST} more")
    return "\n".join(lines)


def nearest(word: str, allowed: Sequence[str]) -> str:
    """`` (did you mean x?)`` for the nearest allowed word, or nothing if none is near."""
    plain = {choice.casefold(): choice for choice in allowed}
    found = difflib.get_close_matches(word.strip().casefold(), list(plain), n=1, cutoff=0.5)
    return f" (did you mean {plain[found[0]]!r}?)" if found else ""
