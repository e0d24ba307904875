"""The pixels of a data set in one file, with a record of the files that they were read from."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pooch

from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset.model import DataSet
from senoscope_training.dataset.reading import FileState, entry_of, list_fovs, read_data_set, report_remarks
from senoscope_training.workers.files import atomic_file, write_atomic
from senoscope_training.workers.progress import Report, silent


class PixelCache:
    """The file with the pixels, [N, C, H, W], and its record, which is written after it."""

    def __init__(self, folder: Path) -> None:
        self.pixels = folder / "pixels.npy"  # for the memory maps of worker processes
        self._record = folder / "pixels.json"

    def delete(self) -> None:
        """Delete both files."""
        self._record.unlink(missing_ok=True)
        self.pixels.unlink(missing_ok=True)

    def read(self, config: DataConfig, size: InputConfig, report: Report = silent) -> DataSet:
        """Read a data set and write its pixels, unless they were written and no file has changed since.

        A file is opened again only if its size or time of change differs from the record.

        Raises
        ------
        DataSetError
            If the data set has faults.
        """
        found = self._unchanged(config, size, report)
        if found is not None:
            return found
        self.delete()
        inspection = read_data_set(config, size, report)
        with atomic_file(self.pixels) as file:
            np.save(file, inspection.pixels)
        self._write(config, size, inspection.files, inspection.remarks)
        return inspection.data_set

    def _write(
        self, config: DataConfig, size: InputConfig, files: dict[str, FileState], remarks: tuple[str, ...]
    ) -> None:
        record = {
            "settings": _settings(config, size),
            "files": {file: asdict(state) for file, state in files.items()},
            "remarks": remarks,
        }
        write_atomic(self._record, json.dumps(record, indent=1))

    def _unchanged(self, config: DataConfig, size: InputConfig, report: Report) -> DataSet | None:
        """Return the data set if its files are those of the record; otherwise None."""
        if not (self._record.is_file() and self.pixels.is_file()):
            return None
        record = json.loads(self._record.read_bytes())
        rows, listing = list_fovs(config)
        names = [file for row in rows for file in row.parts or (row.file,)]
        if (
            listing.faults
            or record["settings"] != _settings(config, size)
            or set(names) != set(record["files"])
        ):
            return None
        recorded = {file: FileState(**state) for file, state in record["files"].items()}
        files = {file: _state(config.path / file, recorded[file]) for file in names}
        if any(files[file].sha256 != recorded[file].sha256 for file in names):
            return None
        if files != recorded:
            self._write(config, size, files, tuple(record["remarks"]))
        report_remarks(record["remarks"], report)
        entries = tuple(entry_of(row, files, config) for row in rows)
        return DataSet(config.path, config.classes, config.channels, entries)


def _settings(config: DataConfig, size: InputConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"path"}) | size.model_dump(mode="json")


def _state(path: Path, recorded: FileState) -> FileState:
    """Return the state of a file; it is hashed only if its size or time of change is not the recorded one."""
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) == (recorded.size, recorded.mtime_ns):
        return recorded
    return FileState(stat.st_size, stat.st_mtime_ns, pooch.file_hash(path))
