"""Which files a data set lists, with labels, groups and splits: from dataset.csv or from folders."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from senoscope_training.dataset.faults import Fault, nearest
from senoscope_training.dataset.kinds import SUFFIXES, Passing, is_readable
from senoscope_training.dataset.walk import FolderWalk

TABLE_NAME = "dataset.csv"
_NUMBER = re.compile(r"[0-9]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_SHORT = 2  # letters, that name wells and not things
_MAX_TABLE = 64 * 1024 * 1024
_CONVERT = "Convert it to TIFF, NPY or PNG"


@dataclass(frozen=True)
class Row:
    """One listed file, not yet opened.

    Attributes
    ----------
    file : str
        Relative to the folder, with forward slashes, inside the folder.
    label : str
        One of the classes.
    parts : tuple of str
        The files of all channels, where each lies in a file of its own; ``file`` is among them.
    """

    file: str
    label: str
    group: str | None
    split: Literal["train", "test"] | None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """What a data set lists.

    Attributes
    ----------
    rows : list of Row
        Usable ones, sorted by file.
    faults : list of Fault
        What is wrong with the others.
    notes : tuple of str
        What was passed over, and files that were found under another spelling.
    """

    rows: list[Row]
    faults: list[Fault]
    notes: tuple[str, ...]


class _Refused(Exception):
    """A row, or the whole table, that cannot be used."""

    def __init__(self, kind: str, file: str, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.fault = Fault(kind, file, problem, remedy)


def list_rows(root: Path, classes: tuple[str, str]) -> Listing:
    """What a data set lists, in dataset.csv or by its folders."""
    if not root.is_dir():
        remedy = "Set data.path to the folder of the data set"
        return Listing([], [Fault("folder", str(root), "there is no such folder", remedy)], ())
    # An unpacked archive of a Mac has a hidden companion of each file, of the table too.
    table = root / TABLE_NAME
    listing = _from_table(table, root, classes) if table.is_file() else _from_folders(root, classes)
    listing.rows.sort(key=lambda row: (composed(row.file), row.file))
    return listing


def composed(text: str) -> str:
    """Text with each letter and its accents as one character, as Windows writes it and Macs do not."""
    return unicodedata.normalize("NFC", text)


class _Spellings:
    """The files of a folder, to be found by names that are spelled otherwise.

    Parameters
    ----------
    root : Path
    listed : collection of str
        The names in the table; a file that one row lists is not what another row means.
    """

    def __init__(self, root: Path, listed: Iterable[str]) -> None:
        self._root = root
        self._listed = {composed(_posix(name)).casefold() for name in listed}
        self._found: dict[str, list[str]] | None = None

    def alike(self, file: str) -> list[str]:
        """Files whose names differ from this one in accents' encoding or in capitals alone."""
        files = self._files().get(composed(file).casefold(), [])
        exact = [one for one in files if composed(one) == composed(file)]
        return exact or files

    def nearest(self, file: str) -> str:
        """The file with the nearest name, for a question in a message; empty if there is none.

        Its numbers are the same, and its single letters: of numbered files and wells every one has
        neighbours, which are others.
        """
        names = [
            composed(one)
            for name, some in self._files().items()
            if name not in self._listed
            for one in some
            if _may_mean(file, one)
        ]
        return _same_name(file, names) or nearest(composed(file), names)

    def _files(self) -> dict[str, list[str]]:
        if self._found is None:
            self._found = {}
            for path in FolderWalk(self._root).files():
                name = path.relative_to(self._root).as_posix()
                self._found.setdefault(composed(name).casefold(), []).append(name)
        return self._found


def _may_mean(file: str, other: str) -> bool:
    """Whether names have the same numbers, and letters that are typing errors at most."""
    name, there = (PurePosixPath(one).with_suffix("").name.casefold() for one in (file, other))
    if [int(number) for number in _NUMBER.findall(name)] != [int(one) for one in _NUMBER.findall(there)]:
        return False
    words, others = _LETTERS.findall(name), _LETTERS.findall(there)
    return len(words) != len(others) or all(
        one == two or max(len(one), len(two)) > _SHORT for one, two in zip(words, others, strict=True)
    )


def _same_name(file: str, names: list[str]) -> str:
    """A file of the same name in another folder."""
    name = PurePosixPath(file).name.casefold()
    found = next((one for one in names if PurePosixPath(one).name.casefold() == name), None)
    return f" (did you mean {found!r}?)" if found else ""


def _from_table(table: Path, root: Path, classes: tuple[str, str]) -> Listing:
    try:
        cells, faults = _read_cells(table)
    except _Refused as refused:
        return Listing([], [refused.fault], ())
    rows: list[Row] = []
    seen: dict[str, str] = {}
    respelled: list[str] = []
    inside = root.resolve()
    spellings = _Spellings(inside, (row.get("file", "") for _, row in cells))
    some_split = any(row.get("split") for _, row in cells)
    for where, row in cells:
        given = row.get("file", "")
        if not given:
            faults.append(Fault("table", where, "names no file", "Fill the column `file`, or delete the row"))
            continue
        try:
            file, place = _locate(given, inside, spellings)
        except _Refused as refused:
            faults.append(refused.fault)
            continue
        if composed(file) != composed(_posix(given)):
            respelled.append(f"{_posix(given)} is {file}")
        if place in seen:
            problem = f"is listed twice ({seen[place]} and {where})"
            faults.append(Fault("repeated", file, problem, "Delete one of the rows"))
            continue
        seen[place] = where
        label, split = row.get("label", ""), row.get("split", "").lower()
        fault = _bad_label(file, label, classes) or _bad_split(file, row, some_split)
        if fault is not None:
            faults.append(fault)
        named = _class_of(label, classes)
        if named is not None:
            side: Literal["train", "test"] | None = None
            if split in ("train", "test"):
                side = "train" if split == "train" else "test"
            rows.append(Row(file, named, composed(row.get("group", "")) or None, side))
    notes = (*_respelled(respelled), *_not_listed(inside, seen))
    return Listing(rows, faults + list(_groups_in_both(rows)), notes)


def _not_listed(inside: Path, listed: Container[str]) -> tuple[str, ...]:
    """Notes on files of the folder that the table does not list."""
    passing, walk = Passing(inside), FolderWalk(inside)
    for path in walk.files(hidden=True):
        if os.path.normcase(path.resolve()) in listed:
            continue
        file = path.relative_to(inside).as_posix()
        if is_readable(path):
            passing.add_unlisted(file)
        else:
            passing.add(file)
    return (*passing.notes(listed=True), *walk.notes(listed=True))


def _respelled(pairs: list[str]) -> tuple[str, ...]:
    if not pairs:
        return ()
    more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    return (f"{TABLE_NAME} writes names with other capitals than the files have: {pairs[0]}{more}",)


def _class_of(label: str, classes: tuple[str, str]) -> str | None:
    """The class that a label or a folder names, whatever its accents are encoded as."""
    return next((name for name in classes if composed(name) == composed(label)), None)


def _posix(given: str) -> str:
    # A table that was written on Windows is read everywhere.
    return PurePosixPath(given.replace("\\", "/")).as_posix()


def _read_cells(table: Path) -> tuple[list[tuple[str, dict[str, str]]], list[Fault]]:
    """Each row's place and its cells by lower-case column."""
    try:
        if table.stat().st_size > _MAX_TABLE:
            raise _Refused("table", TABLE_NAME, "is larger than 64 MiB", "Keep pixels out of the table")
        text = table.read_bytes().decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = ";" if first.count(";") > first.count(",") else ","
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        raise _Refused("table", TABLE_NAME, "is not UTF-8", 'Save it as "CSV UTF-8"') from error
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise _Refused("table", TABLE_NAME, problem, "Check its permissions") from error
    except csv.Error as error:
        problem = f"is no CSV ({error})"
        raise _Refused("table", TABLE_NAME, problem, "Check its quotation marks") from error
    header = [name.strip().casefold() for name in lines[0]] if lines else []
    absent = [name for name in ("file", "label") if name not in header]
    if absent:
        raise _Refused(
            "table",
            TABLE_NAME,
            f"lacks the column {' and '.join(absent)}",
            "Its first line must name the columns file and label; group and split are optional",
        )
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        problem = f"has two columns {', '.join(sorted(twice))}"
        raise _Refused("table", TABLE_NAME, problem, "Rename one of them")
    cells: list[tuple[str, dict[str, str]]] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in line):
            continue
        where = f"{TABLE_NAME}, row {number}"
        if len(line) > len(header) and any(cell.strip() for cell in line[len(header) :]):
            problem = f"has {len(line)} cells, the first line has {len(header)}"
            faults.append(Fault("table", where, problem, "Put cells that hold the separator into quotes"))
            continue
        cells.append((where, {name: cell.strip() for name, cell in zip(header, line, strict=False)}))
    return cells, faults


def _locate(given: str, inside: Path, spellings: _Spellings) -> tuple[str, str]:
    """The name that a listed file has on disk, and where it really lies."""
    path = PurePosixPath(_posix(given))
    remedy = "List files relative to the folder of dataset.csv, and inside it"
    if "\0" in given:
        raise _Refused("outside", repr(given), "is no file name", remedy)
    if path.is_absolute() or PureWindowsPath(given).drive:
        raise _Refused("outside", given, "is an absolute path", remedy)
    if ".." in path.parts:
        raise _Refused("outside", given, "leaves the folder by `..`", remedy)
    file = path.as_posix()
    try:
        if not (inside / path).is_file():
            file = _another_spelling(file, spellings)
            path = PurePosixPath(file)
        place = (inside / path).resolve()
        there = place.is_file()
    except (OSError, RuntimeError) as error:  # too long, or a loop of links
        raise _Refused(
            "missing", file, f"cannot be looked up ({error})", "Correct its row in dataset.csv"
        ) from error
    if not place.is_relative_to(inside):
        raise _Refused("outside", file, "is a link to outside of the folder", "Copy the file into the folder")
    if not there:
        remedy = "Copy it into the folder, correct its name in dataset.csv, or delete its row"
        raise _Refused("missing", file, f"there is no such file{spellings.nearest(file)}", remedy)
    if not is_readable(place):
        raise _Refused("kind", file, f"{path.suffix or 'a file without suffix'} is not read", _CONVERT)
    return file, os.path.normcase(place)


def _another_spelling(file: str, spellings: _Spellings) -> str:
    """The file that is meant where names differ in capitals or in accents' encoding; else the same name."""
    alike = spellings.alike(file)
    if len(alike) > 1:
        problem = f"could be any of {', '.join(repr(one) for one in alike)}"
        raise _Refused("missing", file, problem, "Write its name in dataset.csv as the file has it")
    return alike[0] if alike else file


def _bad_label(file: str, label: str, classes: tuple[str, str]) -> Fault | None:
    if _class_of(label, classes) is not None:
        return None
    problem = f"has the label {label!r}{nearest(label, classes)}" if label else "has no label"
    return Fault(
        "label",
        file,
        problem,
        f"Write {classes[0]} or {classes[1]}, or set data.classes to the names you use",
    )


def _bad_split(file: str, row: dict[str, str], some: bool) -> Fault | None:
    split = row.get("split", "")
    if split.lower() in ("train", "test"):
        return None
    if split:
        problem = f"has the split {split!r}{nearest(split, ('train', 'test'))}"
        return Fault("split", file, problem, "Write train or test; validation is drawn from train")
    if not some:
        return None
    return Fault("split", file, "has no split, others have", "Fill the column `split` in all rows or in none")


def _groups_in_both(rows: list[Row]) -> Iterator[Fault]:
    """A fault for each group that the table puts in training and in test."""
    for group in sorted({row.group for row in rows if row.group}):
        sides = {
            split: [r.file for r in rows if (r.group, r.split) == (group, split)]
            for split in ("train", "test")
        }
        if sides["train"] and sides["test"]:
            yield Fault(
                "group-in-both",
                f"group {group}",
                f"is in train ({len(sides['train'])} files, such as {sides['train'][0]}) and in test "
                f"({len(sides['test'])} files, such as {sides['test'][0]})",
                "Put all of its rows on one side, or clear the column `split` and set split.by: group",
            )


def _from_folders(root: Path, classes: tuple[str, str]) -> Listing:
    rows: list[Row] = []
    faults: list[Fault] = []
    passing, walk = Passing(root), FolderWalk(root)
    inside = root.resolve()
    for path in walk.files(hidden=True):
        relative = path.relative_to(root)
        file, folders = relative.as_posix(), relative.parts[:-1]
        if path.name.startswith(".") or relative.suffix.lower() not in SUFFIXES:
            passing.add(file)
            continue
        if not path.resolve().is_relative_to(inside):
            faults.append(
                Fault("outside", file, "is a link to outside of the folder", "Copy the file into the folder")
            )
            continue
        named = [_class_of(name, classes) for name in folders]
        levels = [level for level, name in enumerate(named) if name is not None]
        if len(levels) != 1:
            hint = next(filter(None, (nearest(name, classes) for name in folders)), "")
            problem = "lies in folders of both classes" if levels else f"lies in no folder of a class{hint}"
            remedy = f"Move it into one folder {classes[0]} or {classes[1]}, or set data.classes"
            faults.append(Fault("label", file, problem, remedy))
            continue
        (level,) = levels
        label = named[level]
        assert label is not None
        rows.append(Row(file, label, composed(folders[0]) if level == 1 else None, None))
    notes = (*passing.notes(listed=False), *walk.notes(listed=False))
    return Listing(rows, [*faults, *passing.faults(), *walk.faults()], notes)
