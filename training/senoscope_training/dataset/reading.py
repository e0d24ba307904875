"""Reading of labelled data sets; all faults are found before training starts."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset.channel_advice import judge_names
from senoscope_training.dataset.channel_detection import detect
from senoscope_training.dataset.consistency import (
    Read,
    brightness_notes,
    channel_name_faults,
    dtype_faults,
    zero_level_faults,
)
from senoscope_training.dataset.faults import Fault, and_more, format_faults, sort_faults
from senoscope_training.dataset.file_facts import FileFacts, facts_of
from senoscope_training.dataset.model import DataSet, DataSetError, Entry, FovError
from senoscope_training.dataset.per_channel import ChannelPattern, combine
from senoscope_training.dataset.pixels import (
    ONE_PER_FILE,
    Decoded,
    decode,
    decode_plane,
    fit,
    join_channels,
    size_fault,
)
from senoscope_training.dataset.table import Listing, Row, list_rows
from senoscope_training.workers.progress import Progress, Report, silent

__all__ = ["FileFacts", "Inspection", "inspect_data_set", "load_fov", "read_data_set"]

_THREADS = 4
_REPORT_EVERY = 50  # files
_MAX_FILE = 1024 * 1024 * 1024
_MAX_REMARKS = 20


@dataclass(frozen=True)
class FileState:
    """Size and time of change of a file when it was read, and the digest of its bytes."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class ReadWarning:
    """An assumption about some files, or a fault of them that data.accept accepts."""

    text: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.text} ({and_more(self.files)})"


@dataclass(frozen=True)
class Inspection:
    """A data set and its faults."""

    data_set: DataSet
    """The usable part of the data set."""
    pixels: npt.NDArray[Any]
    """Its fields of view, [N, C, H, W], in the widest type of the files: uint8, uint16 or float32."""
    files: dict[str, FileState]
    size: InputConfig
    """The requested size, or the most common size of the files."""
    facts: tuple[FileFacts, ...]
    """Properties of each entry."""
    faults: tuple[Fault, ...]
    warnings: tuple[ReadWarning, ...] = ()
    """Assumptions about files, and faults that data.accept accepts."""
    notes: tuple[str, ...] = ()
    """Skipped files, and properties of the data set to check."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Warnings and notes as lines of text."""
        return (*map(str, self.warnings), *self.notes)


def read_data_set(config: DataConfig, size: InputConfig, report: Report = silent) -> Inspection:
    """Read and verify a data set, including the contents of each file.

    Assumptions about files, and skipped files, are reported as warnings.

    Raises
    ------
    DataSetError
        If the data set has faults; the message contains all of them.
    """
    inspection = inspect_data_set(config, size, report)
    report_remarks(inspection.remarks, report)
    if inspection.faults:
        count = len(inspection.faults)
        listed = format_faults(inspection.faults)
        raise DataSetError(
            f"the data set {config.path} has {count} fault{'s' * (count > 1)}:\n{listed}", inspection.faults
        )
    return inspection


def report_remarks(remarks: Sequence[str], report: Report) -> None:
    """Report remarks about a data set as warnings, at most 20 of them."""
    for remark in remarks[:_MAX_REMARKS]:
        report(Progress("warning", detail=remark))
    if len(remarks) > _MAX_REMARKS:
        more = len(remarks) - _MAX_REMARKS
        report(Progress("warning", detail=f"and {more} more; senoscope-train check lists all of them"))


def inspect_data_set(
    config: DataConfig, size: InputConfig | None = None, report: Report = silent
) -> Inspection:
    """Read a data set and collect its faults, without raising; each file is opened and decoded once.

    The default size of a field of view is the most common size of the files.
    """
    rows, listing = list_fovs(config)
    faults = listing.faults
    detected = None if config.per_channel else detect(rows, config.channels)
    read: list[tuple[Row, dict[str, FileState], FileFacts]] = []
    pixels: dict[str, npt.NDArray[Any]] = {}

    def inspect(row: Row) -> tuple[dict[str, FileState], Decoded, FileFacts] | Fault:
        try:
            data = {file: _read_file(config.path, file) for file in row.parts or (row.file,)}
            decoded = _decode_all({file: content for file, (content, _) in data.items()}, config)
        except FovError as error:
            return error.fault
        return {file: state for file, (_, state) in data.items()}, decoded, facts_of(decoded)

    with ThreadPoolExecutor(_THREADS) as pool:
        for n, (row, found) in enumerate(zip(rows, pool.map(inspect, rows), strict=True), 1):
            if isinstance(found, Fault):
                faults.append(found)
            else:
                states, decoded, facts = found
                read.append((row, states, facts))
                pixels[row.file] = decoded.pixels
            if n % _REPORT_EVERY == 0 or n == len(rows):
                report(Progress("checking files", detail=f"{n} of {len(rows)}"))
    if size is None:
        size, size_faults = _most_common_size(facts for _, _, facts in read)
        faults += size_faults
    if config.fit == "refuse":
        wrong = {
            row.file: size_fault(row.file, facts.height, facts.width, size)
            for row, _, facts in read
            if (facts.height, facts.width) != (size.height, size.width)
        }
        faults += wrong.values()
        read = [one for one in read if one[0].file not in wrong]
    acceptable = [*channel_name_faults(read), *dtype_faults(read)]
    acceptable += zero_level_faults(read, config.channels)
    name_notes: tuple[str, ...] = ()
    if detected is not None:
        faults, suspected, name_notes = judge_names(detected, faults, [one for _, _, one in read], config)
        acceptable += suspected
    faults += [fault for fault in acceptable if fault.kind not in config.accept]
    faults += _contradictions(read)
    # A class whose files all have faults is not empty.
    faults += _empty_classes(config, listing.rows, faults)
    entries = tuple(entry_of(row, states, config) for row, states, _ in read)
    accepted = (ReadWarning(one.problem, (one.file,)) for one in acceptable if one.kind in config.accept)
    return Inspection(
        DataSet(config.path, config.classes, config.channels, entries),
        _stack([pixels.pop(row.file) for row, _, _ in read], config, size),
        {file: state for _, states, _ in read for file, state in states.items()},
        size,
        tuple(facts for _, _, facts in read),
        sort_faults(faults),
        (*_warnings(read), *accepted),
        (*listing.notes, *name_notes, *brightness_notes(read, config.channels)),
    )


def list_fovs(config: DataConfig) -> tuple[list[Row], Listing]:
    """List the fields of view of a data set without opening their files, and the files with their faults."""
    listing = list_rows(config.path, config.classes)
    if not config.per_channel:
        return listing.rows, listing
    rows, incomplete = combine(listing.rows, config.per_channel, config.channels)
    listing.faults.extend(incomplete)
    return rows, listing


def entry_of(row: Row, states: Mapping[str, FileState], config: DataConfig) -> Entry:
    """Return the entry of a row, given the states of its files."""
    digests = [states[file].sha256 for file in row.parts or (row.file,)]
    combined = hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()
    sha256 = combined if row.parts else digests[0]
    return Entry(row.file, row.label == config.classes[1], row.group, row.split, sha256, row.parts)


def _stack(fovs: list[npt.NDArray[Any]], config: DataConfig, size: InputConfig) -> npt.NDArray[Any]:
    """Fit fields of view to the size, and return them in one array; the list is emptied to save memory."""
    dtype = np.result_type(np.uint8, *{fov.dtype for fov in fovs})
    stacked = np.empty((len(fovs), len(config.channels), size.height, size.width), dtype)
    for n in reversed(range(len(fovs))):
        stacked[n] = fit(fovs.pop(), config.fit, size)
    return stacked


def _warnings(read: Read) -> Iterator[ReadWarning]:
    files: dict[str, list[str]] = defaultdict(list)
    for row, _, facts in read:
        for warning in facts.warnings:
            files[warning].append(row.file)
    return (ReadWarning(text, tuple(some)) for text, some in files.items())


def load_fov(file: str, config: DataConfig, size: InputConfig) -> npt.NDArray[Any]:
    """Load one field of view, [C, H, W] of uint8, uint16 or float32, in the requested size.

    With ``config.per_channel``, the file is that of one channel, by which the others are found.

    Raises
    ------
    DataSetError
        If the file cannot be used; the message contains the file and a remedy.
    """
    parts = ChannelPattern(config.per_channel).parts(config.path, file) if config.per_channel else (file,)
    pixels = _decode_all({part: _read_file(config.path, part)[0] for part in parts}, config).pixels
    try:
        return fit(pixels, config.fit, size)
    except ValueError:
        raise FovError(size_fault(file, pixels.shape[1], pixels.shape[2], size)) from None


def _decode_all(data: dict[str, bytes], config: DataConfig) -> Decoded:
    """Decode the field of view in one file, or in one file per channel."""
    if not config.per_channel:
        ((file, content),) = data.items()
        return decode(content, file, config)
    planes = [
        decode_plane(content, file, channel, config.channels)
        for (file, content), channel in zip(data.items(), config.channels, strict=True)
    ]
    return join_channels(planes, list(data))


def _read_file(root: Path, file: str) -> tuple[bytes, FileState]:
    path = root / file
    try:
        stat = path.stat()
        if stat.st_size > _MAX_FILE:
            raise FovError(Fault("corrupt", file, "is larger than 1 GiB", ONE_PER_FILE))
        data = path.read_bytes()
    except OSError as error:
        fault = Fault("corrupt", file, f"cannot be opened ({error.strerror})", "Check its permissions")
        raise FovError(fault) from error
    return data, FileState(stat.st_size, stat.st_mtime_ns, hashlib.sha256(data).hexdigest())


def _most_common_size(facts: Iterable[FileFacts]) -> tuple[InputConfig, list[Fault]]:
    sizes = Counter((one.height, one.width) for one in facts)
    if not sizes:
        return InputConfig(), []
    # Of equally common sizes the largest, so that the result does not depend on the order of files.
    (height, width), _ = max(sizes.items(), key=lambda item: (item[1], item[0]))
    if not (32 <= height <= 4096 and 32 <= width <= 4096):
        problem = f"most fields of view have {height}x{width} pixels"
        remedy = "Crop or bin them to between 32 and 4096 rows and columns"
        return InputConfig(), [Fault("size", "the data set", problem, remedy)]
    return InputConfig(height=height, width=width), []


def _contradictions(read: Read) -> Iterator[Fault]:
    first: dict[str, Row] = {}
    for row, _, facts in read:
        other = first.setdefault(facts.pixel_sha256, row)
        if other.label != row.label:
            problem = (
                f"has the label {row.label}, but the same pixels as {other.file} with the label {other.label}"
            )
            yield Fault("contradiction", row.file, problem, "Correct one of the labels, or delete both files")


def _empty_classes(config: DataConfig, rows: list[Row], faults: list[Fault]) -> list[Fault]:
    if any(fault.kind in {"table", "folder"} for fault in faults):
        return []
    if not rows and not faults:
        problem = "contains no TIFF, NPY or PNG file"
        remedy = f"Sort the files into folders {' and '.join(config.classes)}, or list them in dataset.csv"
        return [Fault("folder", str(config.path), problem, remedy)]
    labels = {row.label for row in rows}
    remedy = f"Add files with that label, or set data.classes (now {', '.join(config.classes)})"
    missing = [label for label in config.classes if label not in labels]
    return [Fault("class", label, "has no fields of view", remedy) for label in missing]
