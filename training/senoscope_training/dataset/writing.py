"""Writing of data set folders, completely or not at all."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from senoscope_client.simulation.synthetic import CHANNELS, synthesize
from senoscope_training.dataset.model import DataSet, DataSetError
from senoscope_training.dataset.table import TABLE_NAME
from senoscope_training.workers.progress import Progress, Report, silent

_REPORT_EVERY = 50  # files
# Marks a folder of synthetic FOVs, so that ensembles trained on them are marked as not for science.
SYNTHETIC_NAME = "SYNTHETIC.txt"


def is_synthetic(data: DataSet | Path) -> bool:
    """Return whether a data set or folder is synthetic, part of a synthetic one, or has files of one."""
    root, entries = (data, ()) if isinstance(data, Path) else (data.root, data.entries)
    folders = {root, *root.resolve().parents}
    for path in (root / file for entry in entries for file in (entry.file, *entry.parts)):
        folders.update(path.parents, path.resolve().parents)  # of a link, its own folders and its target's
    return any((folder / SYNTHETIC_NAME).exists() for folder in folders)


@dataclass(frozen=True)
class LabelledFov:
    """A field of view to write."""

    file: str
    """Path of the file, relative to the folder."""
    pixels: npt.NDArray[Any]
    """[C, H, W], uint8, uint16 or float32."""
    label: str
    group: str = ""
    split: str = ""
    """Empty if there is none."""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Create a temporary folder that is renamed to ``out`` at the end, or deleted after an error.

    Raises
    ------
    DataSetError
        If ``out`` exists, or cannot be created.
    """
    if out.exists() or out.is_symlink():
        raise DataSetError(f"{out} already exists; choose another folder, or delete it first")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder as ``out``, so that renaming it is atomic.
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise DataSetError(f"{out} cannot be created ({error.strerror})") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.rename(out)
    except OSError as error:
        raise DataSetError(f"{out} cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_fovs(
    folder: Path, fovs: Iterable[LabelledFov], total: int, channels: tuple[str, ...], report: Report = silent
) -> None:
    """Write one ImageJ TIFF per field of view, and dataset.csv."""
    rows = []
    for n, fov in enumerate(fovs, 1):
        path = folder / fov.file
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"axes": "CYX", "Labels": list(channels)}
        tifffile.imwrite(path, np.ascontiguousarray(fov.pixels), imagej=True, metadata=metadata)
        rows.append((fov.file, fov.label, fov.group, fov.split))
        if n % _REPORT_EVERY == 0 or n == total:
            report(Progress("writing files", detail=f"{n} of {total}"))
    header = ["file", "label", "group", "split"]
    kept = [n for n in range(4) if any(row[n] for row in rows)]  # columns that are not empty
    with (folder / TABLE_NAME).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([header[n] for n in kept])
        writer.writerows([[row[n] for n in kept] for row in rows])


def write_synthetic(
    out: Path,
    *,
    train: int,
    test: int,
    height: int,
    width: int,
    seed: int,
    groups: int,
    report: Report = silent,
) -> None:
    """Write a synthetic data set; each group is either in training or in test, and the classes alternate.

    Raises
    ------
    DataSetError
        If there are too few fields of view for the groups, or ``out`` exists.
    """
    if min(train, test) < 2 or groups < 2:
        raise DataSetError(
            "a data set needs two fields of view for training, two for testing, and two groups"
        )
    test_groups = min(max(1, round(groups * test / (train + test))), groups - 1)
    sides = (
        ("train", train, range(1, groups - test_groups + 1)),
        ("test", test, range(groups - test_groups + 1, groups + 1)),
    )
    for side, count, plates in sides:
        if count < 2 * len(plates):
            raise DataSetError(
                f"{count} fields of view for {side} are too few for {len(plates)} groups with both classes; "
                "increase their number, or decrease the number of groups"
            )

    def fovs() -> Iterator[LabelledFov]:
        index = 0
        for side, count, plates in sides:
            for n in range(count):
                senescent = bool(n % 2)
                # Pairs of both classes are distributed over the plates.
                plate = f"plate_{plates[n // 2 % len(plates)]}"
                pixels = synthesize(seed, index, senescent=senescent, height=height, width=width).pixels
                label = "senescent" if senescent else "control"
                yield LabelledFov(f"{plate}/{side}_{n:04d}.tif", pixels, label, plate, side)
                index += 1

    with new_folder(out) as folder:
        write_fovs(folder, fovs(), train + test, CHANNELS, report)
        (folder / SYNTHETIC_NAME).write_text(
            "Synthetic fields of view, created by `senoscope-train synthesize`; not for science.\n"
        )
