"""Reading a labelled data set: every fault is found before any training starts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset.channel_advice import judge_names
from senoscope_training.dataset.channel_signs import detect
from senoscope_training.dataset.faults import Fault, ordered, told
from senoscope_training.dataset.file_facts import FileFacts, facts_of
from senoscope_training.dataset.model import DataSet, DataSetError, Entry, FovError
from senoscope_training.dataset.per_channel import Pattern, combine
from senoscope_training.dataset.pixels import (
    Decoded,
    decode,
    decode_plane,
    fit,
    guarded,
    join,
    size_fault,
)
from senoscope_training.dataset.suspicions import (
    suspect_brightness,
    suspect_channel_names,
    suspect_types,
    suspect_zero_levels,
)
from senoscope_training.dataset.table import Row, list_rows
from senoscope_training.workers.progress import Progress, Report, silent

__all__ = ["FileFacts", "Inspection", "inspect_data_set", "load_fov", "load_pixels", "read_data_set"]

_THREADS = 4
_EVERY = 50  # files between two reports
_MAX_FILE = 1024 * 1024 * 1024
_MOST_REMARKS = 20


@dataclass(frozen=True)
class Warned:
    """Something that was assumed about some files.

    Attributes
    ----------
    text : str
    files : tuple of str
    """

    text: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.text} ({self.files[0]}{more})"


@dataclass(frozen=True)
class Inspection:
    """A data set with all that is wrong with it.

    Attributes
    ----------
    data_set : DataSet
        What can be used of it.
    size : InputConfig
        As asked for, else the commonest of the files.
    facts : tuple of FileFacts
        Of each entry.
    faults : tuple of Fault
    warnings : tuple of Warned
        What the reader of the files assumed, and faults that data.accept accepts.
    notes : tuple of str
        What was passed over.
    """

    data_set: DataSet
    size: InputConfig
    facts: tuple[FileFacts, ...]
    faults: tuple[Fault, ...]
    warnings: tuple[Warned, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """Warnings and notes as lines of text."""
        return (*map(str, self.warnings), *self.notes)


def read_data_set(config: DataConfig, size: InputConfig, report: Report = silent) -> DataSet:
    """Read and verify a data set; each file is opened.

    What is assumed about files, and what is passed over, is reported as warnings.

    Raises
    ------
    DataSetError
        With every fault of every file in one message.
    """
    inspection = inspect_data_set(config, size, report)
    for remark in inspection.remarks[:_MOST_REMARKS]:
        report(Progress("warning", detail=remark))
    if len(inspection.remarks) > _MOST_REMARKS:
        more = len(inspection.remarks) - _MOST_REMARKS
        report(Progress("warning", detail=f"and {more} more; senoscope-train check has them all"))
    if inspection.faults:
        count = len(inspection.faults)
        raise DataSetError(
            f"the data set {config.path} has {count} fault{'s' * (count > 1)}:\n{told(inspection.faults)}",
            inspection.faults,
        )
    return inspection.data_set


def inspect_data_set(
    config: DataConfig, size: InputConfig | None = None, report: Report = silent
) -> Inspection:
    """Read a data set and collect what is wrong with it, without raising.

    Parameters
    ----------
    config : DataConfig
    size : InputConfig, optional
        Of a field of view; the commonest size of the files where it is not given.
    report : callable
        Told of every 50 files.
    """
    listing = list_rows(config.path, config.classes)
    rows, faults = listing.rows, listing.faults
    detected = None
    if config.per_channel:
        rows, incomplete = combine(rows, config.per_channel, config.channels)
        faults += incomplete
    else:
        detected = detect(rows, config.channels)
    read: list[tuple[Row, str, FileFacts]] = []

    def inspect(row: Row) -> tuple[Row, str, FileFacts] | Fault:
        try:
            data = _bytes_of_all(config.path, row.parts or (row.file,))
            return row, _sha256(data), facts_of(_decode_all(data, config))
        except FovError as error:
            return error.fault

    with ThreadPoolExecutor(_THREADS) as pool:
        for found in _reported(pool.map(inspect, rows), len(rows), "checking files", report):
            if isinstance(found, Fault):
                faults.append(found)
            else:
                read.append(found)
    if size is None:
        size, oversized = _commonest_size(facts for _, _, facts in read)
        faults += oversized
    if config.fit == "refuse":
        wrong = {
            row.file: size_fault(row.file, facts.height, facts.width, size)
            for row, _, facts in read
            if (facts.height, facts.width) != (size.height, size.width)
        }
        faults += wrong.values()
        read = [one for one in read if one[0].file not in wrong]
    suspicions = [
        *suspect_channel_names(read),
        *suspect_types(read),
        *suspect_zero_levels(read, config.channels),
    ]
    maybe: tuple[str, ...] = ()
    if detected is not None:
        faults, found, maybe = judge_names(detected, faults, [facts for _, _, facts in read], config)
        suspicions += found
    faults += [fault for fault in suspicions if fault.kind not in config.accept]
    faults += _contradictions(read)
    # A class all of whose files are faulty is told by its files' faults.
    faults += _empty_classes(config, listing.rows, faults)
    entries = tuple(
        Entry(row.file, row.label == config.classes[1], row.group, row.split, sha256, row.parts)
        for row, sha256, _ in read
    )
    return Inspection(
        DataSet(config.path, config.classes, config.channels, entries),
        size,
        tuple(facts for _, _, facts in read),
        ordered(faults),
        (
            *_warned(read),
            *(Warned(one.problem, (one.file,)) for one in suspicions if one.kind in config.accept),
        ),
        (*listing.notes, *maybe, *suspect_brightness(read, config.channels)),
    )


def _warned(read: Sequence[tuple[Row, str, FileFacts]]) -> Iterator[Warned]:
    files: dict[str, list[str]] = {}
    for row, _, facts in read:
        for warning in facts.warnings:
            files.setdefault(warning, []).append(row.file)
    for text, some in files.items():
        yield Warned(text, tuple(some))


def load_fov(root: Path, file: str, config: DataConfig, size: InputConfig) -> npt.NDArray[Any]:
    """One field of view, [C, H, W] of uint8, uint16 or float32, in the size asked for.

    Parameters
    ----------
    root : Path
        Folder of the data set.
    file : str
        In it, as `Entry.file`; with ``config.per_channel`` the files of the other channels are found by it.

    Raises
    ------
    DataSetError
        If it cannot be used; the message names the file and what to do.
    """
    parts = Pattern(config.per_channel).parts(root, file) if config.per_channel else (file,)
    return _fitted(_bytes_of_all(root, parts), file, config, size)


def load_pixels(
    data_set: DataSet,
    indices: Sequence[int] | npt.NDArray[np.int64],
    config: DataConfig,
    size: InputConfig,
    report: Report = silent,
) -> npt.NDArray[Any]:
    """Fields of view of a data set.

    Parameters
    ----------
    indices : sequence of int [N]
        Of entries, in the order that is wanted.

    Returns
    -------
    array [N, C, H, W]
        Of the widest type of the files: uint8, uint16 or float32.

    Raises
    ------
    DataSetError
        If a file is not what it was when the data set was read.
    """
    entries = [data_set.entries[int(index)] for index in indices]
    pixels = np.empty((len(entries), len(config.channels), size.height, size.width), np.uint8)

    def load(entry: Entry) -> npt.NDArray[Any]:
        data = _bytes_of_all(data_set.root, entry.parts or (entry.file,))
        if _sha256(data) != entry.sha256:
            remedy = "Leave the data set alone while it is in use, and start again"
            raise FovError(Fault("corrupt", entry.file, "has changed since it was read", remedy))
        return _fitted(data, entry.file, config, size)

    with ThreadPoolExecutor(_THREADS) as pool:
        loaded = _reported(pool.map(load, entries), len(entries), "loading files", report)
        for n, fov in enumerate(loaded):
            wider = np.result_type(pixels.dtype, fov.dtype)
            if wider != pixels.dtype:
                pixels = pixels.astype(wider)
            pixels[n] = fov
    return pixels


def _fitted(data: dict[str, bytes], file: str, config: DataConfig, size: InputConfig) -> npt.NDArray[Any]:
    pixels = _decode_all(data, config).pixels
    try:
        return fit(pixels, config.fit, size)
    except ValueError:
        raise FovError(size_fault(file, pixels.shape[1], pixels.shape[2], size)) from None


def _decode_all(data: dict[str, bytes], config: DataConfig) -> Decoded:
    """The field of view in one file, or in one file for each channel."""
    if not config.per_channel:
        ((file, content),) = data.items()
        return decode(content, file, config)
    planes = [
        decode_plane(content, file, channel, config.channels)
        for (file, content), channel in zip(data.items(), config.channels, strict=True)
    ]
    return join(planes, list(data))


def _sha256(data: dict[str, bytes]) -> str:
    """Of one file, or of the SHA-256 of several."""
    digests = [hashlib.sha256(content) for content in data.values()]
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()


def _bytes_of_all(root: Path, files: Sequence[str]) -> dict[str, bytes]:
    return {file: _bytes_of(root / file, file) for file in files}


def _bytes_of(path: Path, file: str) -> bytes:
    if guarded(path.stat, file).st_size > _MAX_FILE:
        remedy = "Save each field of view as a file of its own"
        raise FovError(Fault("corrupt", file, "is larger than 1 GiB", remedy))
    return guarded(path.read_bytes, file)


def _commonest_size(facts: Iterable[FileFacts]) -> tuple[InputConfig, list[Fault]]:
    sizes = Counter((one.height, one.width) for one in facts)
    if not sizes:
        return InputConfig(), []
    # Of equally common sizes the largest, so that the order of files decides nothing.
    (height, width), _ = max(sizes.items(), key=lambda item: (item[1], item[0]))
    if not (32 <= height <= 4096 and 32 <= width <= 4096):
        problem = f"most fields of view have {height}x{width} pixels"
        remedy = "Crop or bin them to between 32 and 4096 rows and columns"
        return InputConfig(), [Fault("size", "the data set", problem, remedy)]
    return InputConfig(height=height, width=width), []


def _contradictions(read: list[tuple[Row, str, FileFacts]]) -> Iterator[Fault]:
    first: dict[str, Row] = {}
    for row, _, facts in read:
        other = first.setdefault(facts.pixel_sha256, row)
        if other.label != row.label:
            problem = (
                f"is labelled {row.label}, but has the same pixels as {other.file}, labelled {other.label}"
            )
            yield Fault("contradiction", row.file, problem, "Correct one of the labels, or delete both files")


def _empty_classes(config: DataConfig, rows: list[Row], faults: list[Fault]) -> list[Fault]:
    if any(fault.kind in {"table", "folder"} for fault in faults):
        return []
    if not rows and not faults:
        problem = "holds no .tif, .tiff, .npy or .png file, nor another kind of TIFF"
        remedy = f"Sort the files into folders {' and '.join(config.classes)}, or list them in dataset.csv"
        return [Fault("folder", str(config.path), problem, remedy)]
    there = {row.label for row in rows}
    return [
        Fault(
            "class",
            label,
            "has not one field of view",
            f"Add files with that label, or set data.classes (now {', '.join(config.classes)})",
        )
        for label in config.classes
        if label not in there
    ]


def _reported(found: Iterable[Any], total: int, stage: str, report: Report) -> Iterator[Any]:
    for n, one in enumerate(found, 1):
        yield one
        if n % _EVERY == 0 or n == total:
            report(Progress(stage, detail=f"{n} of {total}"))
