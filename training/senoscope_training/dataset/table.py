"""Which files a data set lists, with labels, groups and splits: from dataset.csv or from folders."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from senoscope_training.dataset.faults import Fault, nearest

TABLE_NAME = "dataset.csv"
SUFFIXES = frozenset({".tif", ".tiff", ".npy", ".png"})
# Image files that people have, which are not read: to skip them in silence would lose fields of view.
_OTHER_IMAGES = frozenset(
    {".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".czi", ".lif", ".nd2", ".oib", ".oif", ".lsm", ".npz", ".mat"}
)
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
    """

    file: str
    label: str
    group: str | None
    split: Literal["train", "test"] | None


class _Refused(Exception):
    """A row, or the whole table, that cannot be used."""

    def __init__(self, kind: str, file: str, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.fault = Fault(kind, file, problem, remedy)


def list_rows(root: Path, classes: tuple[str, str]) -> tuple[list[Row], list[Fault]]:
    """Usable rows, sorted by file, and what is wrong with the others."""
    if not root.is_dir():
        remedy = "Set data.path to the folder of the data set"
        return [], [Fault("folder", str(root), "there is no such folder", remedy)]
    table = root / TABLE_NAME
    rows, faults = _from_table(table, root, classes) if table.is_file() else _from_folders(root, classes)
    rows.sort(key=lambda row: row.file)
    return rows, faults


def _from_table(table: Path, root: Path, classes: tuple[str, str]) -> tuple[list[Row], list[Fault]]:
    try:
        cells, faults = _read_cells(table)
    except _Refused as refused:
        return [], [refused.fault]
    rows: list[Row] = []
    seen: dict[str, str] = {}
    inside = root.resolve()
    some_split = any(row.get("split") for _, row in cells)
    for where, row in cells:
        given = row.get("file", "")
        if not given:
            faults.append(Fault("table", where, "names no file", "Fill the column `file`, or delete the row"))
            continue
        try:
            file, place = _locate(given, inside)
        except _Refused as refused:
            faults.append(refused.fault)
            continue
        if place in seen:
            problem = f"is listed twice ({seen[place]} and {where})"
            faults.append(Fault("repeated", file, problem, "Delete one of the rows"))
            continue
        seen[place] = where
        label, split = row.get("label", ""), row.get("split", "").lower()
        fault = _bad_label(file, label, classes) or _bad_split(file, row, some_split)
        if fault is not None:
            faults.append(fault)
        if label in classes:
            side: Literal["train", "test"] | None = None
            if split in ("train", "test"):
                side = "train" if split == "train" else "test"
            rows.append(Row(file, label, row.get("group") or None, side))
    return rows, faults + list(_groups_in_both(rows))


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


def _locate(given: str, inside: Path) -> tuple[str, str]:
    """The normal name of a listed file and where it really lies."""
    # A table that was written on Windows is read everywhere.
    path = PurePosixPath(given.replace("\\", "/"))
    remedy = "List files relative to the folder of dataset.csv, and inside it"
    if "\0" in given:
        raise _Refused("outside", repr(given), "is no file name", remedy)
    if path.is_absolute() or PureWindowsPath(given).drive:
        raise _Refused("outside", given, "is an absolute path", remedy)
    if ".." in path.parts:
        raise _Refused("outside", given, "leaves the folder by `..`", remedy)
    file = path.as_posix()
    try:
        place = (inside / path).resolve()
        there = place.is_file()
    except (OSError, RuntimeError) as error:  # too long, or a loop of links
        raise _Refused(
            "missing", file, f"cannot be looked up ({error})", "Correct its row in dataset.csv"
        ) from error
    if not place.is_relative_to(inside):
        raise _Refused("outside", file, "is a link to outside of the folder", "Copy the file into the folder")
    if not there:
        remedy = "Copy it into the folder, or delete its row in dataset.csv"
        raise _Refused("missing", file, "there is no such file", remedy)
    if path.suffix.lower() not in SUFFIXES:
        raise _Refused("kind", file, f"{path.suffix or 'a file without suffix'} is not read", _CONVERT)
    return file, os.path.normcase(place)


def _bad_label(file: str, label: str, classes: tuple[str, str]) -> Fault | None:
    if label in classes:
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


def _from_folders(root: Path, classes: tuple[str, str]) -> tuple[list[Row], list[Fault]]:
    rows: list[Row] = []
    faults: list[Fault] = []
    inside = root.resolve()
    for path in _files(root):
        relative = path.relative_to(root)
        file, folders = relative.as_posix(), relative.parts[:-1]
        suffix = relative.suffix.lower()
        if suffix in _OTHER_IMAGES:
            faults.append(Fault("kind", file, f"{suffix} is not read", f"{_CONVERT}, or move it away"))
        if suffix not in SUFFIXES:
            continue
        if not path.resolve().is_relative_to(inside):
            faults.append(
                Fault("outside", file, "is a link to outside of the folder", "Copy the file into the folder")
            )
            continue
        levels = [level for level, name in enumerate(folders) if name in classes]
        if len(levels) != 1:
            hint = next(filter(None, (nearest(name, classes) for name in folders)), "")
            problem = "lies in folders of both classes" if levels else f"lies in no folder of a class{hint}"
            remedy = f"Move it into one folder {classes[0]} or {classes[1]}, or set data.classes"
            faults.append(Fault("label", file, problem, remedy))
            continue
        (level,) = levels
        rows.append(Row(file, folders[level], folders[0] if level == 1 else None, None))
    return rows, faults


def _files(root: Path) -> Iterator[Path]:
    """Files below a folder, but for hidden ones and those that macOS adds to archives."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith((".", "__MACOSX")))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))
