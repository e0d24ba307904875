"""Reading a labelled data set: every fault is found before any training starts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset.faults import Fault, ordered, told
from senoscope_training.dataset.model import DataSet, DataSetError, Entry
from senoscope_training.dataset.pixels import FovError, decode, fit, guarded, size_fault
from senoscope_training.dataset.table import Row, list_rows
from senoscope_training.progress import Progress, Report, silent

__all__ = ["FileFacts", "Inspection", "inspect_data_set", "load_fov", "load_pixels", "read_data_set"]

_THREADS = 4
_EVERY = 50  # files between two reports
_MAX_FILE = 1024 * 1024 * 1024
_HASH_EDGE = 16


@dataclass(frozen=True)
class FileFacts:
    """What was found in a file.

    Attributes
    ----------
    height, width : int
        Before any padding or resizing.
    dtype : str
    pixel_sha256 : str
        Of the pixels as decoded, whatever the container.
    average_hash : bytes or None
        256 bits: which of 16x16 blocks are brighter than their mean. None for a flat image.
    """

    height: int
    width: int
    dtype: str
    pixel_sha256: str
    average_hash: bytes | None


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
    """

    data_set: DataSet
    size: InputConfig
    facts: tuple[FileFacts, ...]
    faults: tuple[Fault, ...]


def read_data_set(config: DataConfig, size: InputConfig, report: Report = silent) -> DataSet:
    """Read and verify a data set; each file is opened.

    Raises
    ------
    DataSetError
        With every fault of every file in one message.
    """
    inspection = inspect_data_set(config, size, report)
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
    rows, faults = list_rows(config.path, config.classes)
    read: list[tuple[Row, str, FileFacts]] = []

    def inspect(row: Row) -> tuple[Row, str, FileFacts] | Fault:
        try:
            data = _bytes_of(config.path / row.file, row.file)
            return row, hashlib.sha256(data).hexdigest(), _facts_of(decode(data, row.file, config))
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
    faults += _contradictions(read)
    # A class all of whose files are faulty is told by its files' faults.
    faults += _empty_classes(config, rows, faults)
    entries = tuple(
        Entry(row.file, row.label == config.classes[1], row.group, row.split, sha256)
        for row, sha256, _ in read
    )
    return Inspection(
        DataSet(config.path, config.classes, config.channels, entries),
        size,
        tuple(facts for _, _, facts in read),
        ordered(faults),
    )


def load_fov(path: Path, config: DataConfig, size: InputConfig) -> npt.NDArray[Any]:
    """One field of view, [C, H, W] of uint8, uint16 or float32, in the size asked for.

    Raises
    ------
    DataSetError
        If it cannot be used; the message names the file and what to do.
    """
    return _fitted(_bytes_of(path, path.name), path.name, config, size)


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
        data = _bytes_of(data_set.root / entry.file, entry.file)
        if hashlib.sha256(data).hexdigest() != entry.sha256:
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


def _fitted(data: bytes, file: str, config: DataConfig, size: InputConfig) -> npt.NDArray[Any]:
    pixels = decode(data, file, config)
    try:
        return fit(pixels, config.fit, size)
    except ValueError:
        raise FovError(size_fault(file, pixels.shape[1], pixels.shape[2], size)) from None


def _bytes_of(path: Path, file: str) -> bytes:
    if guarded(path.stat, file).st_size > _MAX_FILE:
        remedy = "Save each field of view as a file of its own"
        raise FovError(Fault("corrupt", file, "is larger than 1 GiB", remedy))
    return guarded(path.read_bytes, file)


def _facts_of(pixels: npt.NDArray[Any]) -> FileFacts:
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.str}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    height, width = pixels.shape[1:]
    return FileFacts(height, width, pixels.dtype.name, digest.hexdigest(), _average_hash(pixels))


def _average_hash(pixels: npt.NDArray[Any]) -> bytes | None:
    edge = (_HASH_EDGE, _HASH_EDGE)
    blocks = [
        cv2.resize(plane.astype(np.float32), edge, interpolation=cv2.INTER_AREA).astype(np.float64)
        for plane in pixels
    ]
    spreads = [float(block.std()) for block in blocks]
    # Channels count alike, whatever the gain of their detectors.
    seen = [
        (block - block.mean()) / spread for block, spread in zip(blocks, spreads, strict=True) if spread > 0
    ]
    if not seen:
        return None
    mean = np.mean(seen, axis=0)
    return np.packbits(mean > mean.mean()).tobytes()


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
        problem = "holds no .tif, .tiff, .npy or .png file"
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
