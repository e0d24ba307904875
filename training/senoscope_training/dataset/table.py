"""The files of a data set with labels, groups and splits, from dataset.csv or from folders."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from senoscope_training.dataset.faults import Fault, and_more, suggest
from senoscope_training.dataset.model import FovError
from senoscope_training.dataset.walk import CONVERT, SUFFIXES, FolderWalk, is_readable

TABLE_NAME = "dataset.csv"
_NUMBER = re.compile(r"[0-9]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_SPLITS: dict[str, Literal["train", "test"]] = {"train": "train", "test": "test"}
_MAX_WELL_LETTERS = 2  # shorter words are names of wells
_MAX_TABLE = 64 * 1024 * 1024


@dataclass(frozen=True)
class Row:
    """One file of a data set that has not been opened."""

    file: str
    """Relative to the folder of the data set, with forward slashes."""
    label: str
    """One of the classes."""
    group: str | None
    split: Literal["train", "test"] | None
    parts: tuple[str, ...] = ()
    """With one file per channel: the files of all channels, including ``file``."""


@dataclass(frozen=True)
class Listing:
    """The files of a data set."""

    rows: list[Row]
    """Usable files, sorted by name."""
    faults: list[Fault]
    """Faults of the others."""
    notes: tuple[str, ...]
    """Skipped files, and files whose names are spelled differently in dataset.csv."""


def list_rows(root: Path, classes: tuple[str, ...]) -> Listing:
    """List the files of a data set by dataset.csv, or by its folders if there is no such table."""
    if not root.is_dir():
        remedy = "Set data.path to the folder of the data set"
        return Listing([], [Fault("folder", str(root), "is not a folder", remedy)], ())
    table = root / TABLE_NAME
    listing = _from_table(table, root, classes) if table.is_file() else _from_folders(root, classes)
    listing.rows.sort(key=lambda row: (composed(row.file), row.file))
    return listing


def composed(text: str) -> str:
    """Return text in Unicode's composed form (NFC); macOS writes file names in the decomposed form."""
    return unicodedata.normalize("NFC", text)


class _Spellings:
    """Finds files of a folder by names that are spelled differently.

    A file that is ``listed`` in one row of the table is not suggested for another row.
    """

    def __init__(self, root: Path, listed: Iterable[str]) -> None:
        self._root = root
        self._listed = {composed(_posix(name)).casefold() for name in listed}

    def equivalents(self, file: str) -> list[str]:
        """Return files whose names differ only in the encoding of accents or in case."""
        files = self._files.get(composed(file).casefold(), [])
        exact = [one for one in files if composed(one) == composed(file)]
        return exact or files

    def suggest(self, file: str) -> str:
        """Return a question with the file of the most similar name, for a message; empty if there is none.

        Numbers and single letters must be equal: files with neighbouring numbers or wells are different
        files.
        """
        names = [
            composed(one)
            for name, some in self._files.items()
            if name not in self._listed
            for one in some
            if _is_plausible(file, one)
        ]
        wanted = PurePosixPath(file).name.casefold()
        elsewhere = next((one for one in names if PurePosixPath(one).name.casefold() == wanted), None)
        return f" (did you mean {elsewhere!r}?)" if elsewhere else suggest(composed(file), names)

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in FolderWalk(self._root).files():
            name = path.relative_to(self._root).as_posix()
            found.setdefault(composed(name).casefold(), []).append(name)
        return found


def _is_plausible(file: str, other: str) -> bool:
    """Return whether two names have the same numbers, and differ only in words that may be misspelled."""
    name, similar = (PurePosixPath(one).with_suffix("").name.casefold() for one in (file, other))
    if [int(number) for number in _NUMBER.findall(name)] != [int(one) for one in _NUMBER.findall(similar)]:
        return False
    words, others = _LETTERS.findall(name), _LETTERS.findall(similar)
    return len(words) != len(others) or all(
        one == two or max(len(one), len(two)) > _MAX_WELL_LETTERS
        for one, two in zip(words, others, strict=True)
    )


def _from_table(table: Path, root: Path, classes: tuple[str, ...]) -> Listing:
    try:
        cells, faults = _read_cells(table)
    except FovError as refused:
        return Listing([], [refused.fault], ())
    rows: list[Row] = []
    row_of: dict[str, str] = {}
    respelled: list[str] = []
    inside = root.resolve()
    spellings = _Spellings(inside, (row.get("file", "") for _, row in cells))
    some_split = any(row.get("split") for _, row in cells)
    for where, row in cells:
        given = row.get("file", "")
        if not given:
            faults.append(Fault("table", where, "has no file", "Fill the column `file`, or delete the row"))
            continue
        try:
            file, location = _locate(given, inside, spellings)
        except FovError as refused:
            faults.append(refused.fault)
            continue
        if composed(file) != composed(_posix(given)):
            respelled.append(f"{_posix(given)} is {file}")
        if location in row_of:
            problem = f"is listed twice ({row_of[location]} and {where})"
            faults.append(Fault("repeated", file, problem, "Delete one of the rows"))
            continue
        row_of[location] = where
        label, split = row.get("label", ""), row.get("split", "").lower()
        fault = _label_fault(file, label, classes) or _split_fault(file, row, some_split)
        if fault is not None:
            faults.append(fault)
        named = _class_of(label, classes)
        if named is not None:
            side = _SPLITS.get(split)
            rows.append(Row(file, named, composed(row.get("group", "")) or None, side))
    notes = _not_listed(inside, row_of)
    if respelled:
        notes = (f"{TABLE_NAME} has names in another case than the files: {and_more(respelled)}", *notes)
    return Listing(rows, faults + list(_groups_in_both(rows)), notes)


def _not_listed(inside: Path, listed: Container[str]) -> tuple[str, ...]:
    """Return notes about files of the folder that the table does not list."""
    walk = FolderWalk(inside)
    for path in walk.files(hidden=True):
        if os.path.normcase(path.resolve()) in listed:
            continue
        file = path.relative_to(inside).as_posix()
        if is_readable(path):
            walk.skip_unlisted(file)
        else:
            walk.skip(file)
    return walk.notes(listed=True)


def _class_of(label: str, classes: tuple[str, ...]) -> str | None:
    """Return the class of a label or folder, independent of the encoding of accents."""
    return next((name for name in classes if composed(name) == composed(label)), None)


def _posix(given: str) -> str:
    # Tables that were written on Windows are read on all systems.
    return PurePosixPath(given.replace("\\", "/")).as_posix()


def _read_cells(table: Path) -> tuple[list[tuple[str, dict[str, str]]], list[Fault]]:
    """Return a description of each row's position, and its cells by column in lower case."""
    try:
        if table.stat().st_size > _MAX_TABLE:
            raise FovError(
                Fault("table", TABLE_NAME, "is larger than 64 MiB", "Remove pixel data from the table")
            )
        text = table.read_bytes().decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = ";" if first.count(";") > first.count(",") else ","
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        raise FovError(Fault("table", TABLE_NAME, "is not UTF-8", 'Save it as "CSV UTF-8"')) from error
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise FovError(Fault("table", TABLE_NAME, problem, "Check its permissions")) from error
    except csv.Error as error:
        problem = f"is not a valid CSV file ({error})"
        raise FovError(Fault("table", TABLE_NAME, problem, "Check its quotation marks")) from error
    header = [name.strip().casefold() for name in lines[0]] if lines else []
    absent = [name for name in ("file", "label") if name not in header]
    if absent:
        remedy = "The first line must have the columns file and label; group and split are optional"
        raise FovError(Fault("table", TABLE_NAME, f"has no column {' and '.join(absent)}", remedy))
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        problem = f"has two columns {', '.join(sorted(twice))}"
        raise FovError(Fault("table", TABLE_NAME, problem, "Rename one of them"))
    cells: list[tuple[str, dict[str, str]]] = []
    faults: list[Fault] = []
    for number, line in enumerate(lines[1:], 2):
        if not any(cell.strip() for cell in line):
            continue
        where = f"{TABLE_NAME}, row {number}"
        if len(line) > len(header) and any(cell.strip() for cell in line[len(header) :]):
            problem = f"has {len(line)} cells, but the first line has {len(header)}"
            faults.append(Fault("table", where, problem, "Put cells that contain the separator into quotes"))
            continue
        cells.append((where, {name: cell.strip() for name, cell in zip(header, line, strict=False)}))
    return cells, faults


def _locate(given: str, inside: Path, spellings: _Spellings) -> tuple[str, str]:
    """Return the name of a listed file on disk, and its location with links resolved."""
    path = PurePosixPath(_posix(given))
    remedy = "List files relative to the folder of dataset.csv, and inside it"
    if "\0" in given:
        raise FovError(Fault("outside", repr(given), "is not a file name", remedy))
    if path.is_absolute() or PureWindowsPath(given).drive:
        raise FovError(Fault("outside", given, "is an absolute path", remedy))
    if ".." in path.parts:
        raise FovError(Fault("outside", given, "leaves the folder by `..`", remedy))
    file = path.as_posix()
    try:
        if not (inside / path).is_file():
            file = _another_spelling(file, spellings)
            path = PurePosixPath(file)
        location = (inside / path).resolve()
        exists = location.is_file()
    except (OSError, RuntimeError) as error:  # too long, or a loop of links
        problem = f"cannot be opened ({error})"
        raise FovError(Fault("missing", file, problem, "Correct its row in dataset.csv")) from error
    if not location.is_relative_to(inside):
        problem = "is a link to a file outside of the folder"
        raise FovError(Fault("outside", file, problem, "Copy the file into the folder"))
    if not exists:
        remedy = "Copy it into the folder, correct its name in dataset.csv, or delete its row"
        raise FovError(Fault("missing", file, f"does not exist{spellings.suggest(file)}", remedy))
    if not is_readable(location):
        raise FovError(
            Fault("kind", file, f"{path.suffix or 'a file without suffix'} is not supported", CONVERT)
        )
    return file, os.path.normcase(location)


def _another_spelling(file: str, spellings: _Spellings) -> str:
    """Return the file whose name differs only in case or in the encoding of accents, or the given name."""
    equivalents = spellings.equivalents(file)
    if len(equivalents) > 1:
        problem = f"could be any of {', '.join(repr(one) for one in equivalents)}"
        raise FovError(Fault("missing", file, problem, "Write the exact name of the file in dataset.csv"))
    return equivalents[0] if equivalents else file


def _label_fault(file: str, label: str, classes: tuple[str, ...]) -> Fault | None:
    if _class_of(label, classes) is not None:
        return None
    problem = f"has the label {label!r}{suggest(label, classes)}" if label else "has no label"
    remedy = f"Write {classes[0]} or {classes[1]}, or set data.classes to the names you use"
    return Fault("label", file, problem, remedy)


def _split_fault(file: str, row: dict[str, str], some_split: bool) -> Fault | None:
    split = row.get("split", "")
    if split.lower() in _SPLITS:
        return None
    if split:
        problem = f"has the split {split!r}{suggest(split, tuple(_SPLITS))}"
        return Fault("split", file, problem, "Write train or test; validation is drawn from train")
    remedy = "Fill the column `split` in all rows or in none"
    return Fault("split", file, "has no split, but others do", remedy) if some_split else None


def _groups_in_both(rows: list[Row]) -> Iterator[Fault]:
    """Report groups that the table assigns to both training and test."""
    for group in sorted({row.group for row in rows if row.group}):
        sides = {side: [r.file for r in rows if (r.group, r.split) == (group, side)] for side in _SPLITS}
        if all(sides.values()):
            places = [f"in {s} ({len(some)} files, for example {some[0]})" for s, some in sides.items()]
            remedy = "Assign all of its rows to one side, or clear the column `split` and set split.by: group"
            yield Fault("group-in-both", f"group {group}", f"is {' and '.join(places)}", remedy)


def _from_folders(root: Path, classes: tuple[str, ...]) -> Listing:
    rows: list[Row] = []
    faults: list[Fault] = []
    walk = FolderWalk(root)
    inside = root.resolve()
    for path in walk.files(hidden=True):
        relative = path.relative_to(root)
        file, folders = relative.as_posix(), relative.parts[:-1]
        if path.name.startswith(".") or relative.suffix.lower() not in SUFFIXES:
            walk.skip(file)
            continue
        if not path.resolve().is_relative_to(inside):
            problem = "is a link to a file outside of the folder"
            faults.append(Fault("outside", file, problem, "Copy the file into the folder"))
            continue
        named = [_class_of(name, classes) for name in folders]
        levels = [level for level, name in enumerate(named) if name is not None]
        if len(levels) != 1:
            hint = next(filter(None, (suggest(name, classes) for name in folders)), "")
            problem = "is in folders of both classes" if levels else f"is not in a folder of a class{hint}"
            remedy = f"Move it into one folder {classes[0]} or {classes[1]}, or set data.classes"
            faults.append(Fault("label", file, problem, remedy))
            continue
        (level,) = levels
        label = named[level]
        assert label is not None
        rows.append(Row(file, label, composed(folders[0]) if level == 1 else None, None))
    return Listing(rows, [*faults, *walk.faults()], walk.notes(listed=False))
