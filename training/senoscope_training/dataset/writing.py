"""Writing a data set folder, all of it or nothing."""

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

_EVERY = 50
# Lies in a folder of synthetic FOVs, so that no ensemble trained on them is taken for science.
SYNTHETIC_NAME = "SYNTHETIC.txt"


def is_synthetic(data: DataSet | Path) -> bool:
    """Whether a data set, or a folder, is one of drawings, a part of one, or has files of one."""
    root, entries = (data, ()) if isinstance(data, Path) else (data.root, data.entries)
    folders = {root, *root.resolve().parents}
    for path in (root / file for entry in entries for file in (entry.file, *entry.parts)):
        folders.update(path.parents, path.resolve().parents)  # of a link, both its place and its target's
    return any((folder / SYNTHETIC_NAME).exists() for folder in folders)


@dataclass(frozen=True)
class LabelledFov:
    """A field of view to be written.

    Attributes
    ----------
    file : str
        Where to, relative to the folder.
    pixels : array [C, H, W]
        uint8, uint16 or float32.
    label : str
    group, split : str
        Empty if there is none.
    """

    file: str
    pixels: npt.NDArray[Any]
    label: str
    group: str = ""
    split: str = ""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``out`` at the end, or vanishes if anything goes wrong.

    Raises
    ------
    DataSetError
        If ``out`` is there already, or cannot be made.
    """
    if out.exists() or out.is_symlink():
        raise DataSetError(f"{out} already exists; choose another folder, or delete it first")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, so that it can be renamed in one go.
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise DataSetError(f"{out} cannot be made ({error.strerror})") from error
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
    """Write a TIFF per field of view, which ImageJ opens too, and dataset.csv."""
    rows = []
    for n, fov in enumerate(fovs, 1):
        path = folder / fov.file
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            path,
            np.ascontiguousarray(fov.pixels),
            imagej=True,
            metadata={"axes": "CYX", "Labels": list(channels)},
        )
        rows.append((fov.file, fov.label, fov.group, fov.split))
        if n % _EVERY == 0 or n == total:
            report(Progress("writing files", detail=f"{n} of {total}"))
    header = ["file", "label", "group", "split"]
    # Columns in which nothing stands are left out.
    kept = [n for n in range(4) if any(row[n] for row in rows)]
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
    """Write a synthetic data set; whole groups are in training or in test, the classes take turns.

    Parameters
    ----------
    train, test : int
        Fields of view, two at least.
    groups : int
        Culture plates, two at least.

    Raises
    ------
    DataSetError
        If the numbers do not fit together, or ``out`` is there already.
    """
    if min(train, test) < 2 or groups < 2:
        raise DataSetError("a data set needs two fields of view to train, two to test, and two groups")
    test_groups = min(max(1, round(groups * test / (train + test))), groups - 1)
    sides = (
        ("train", train, range(1, groups - test_groups + 1)),
        ("test", test, range(groups - test_groups + 1, groups + 1)),
    )
    for side, count, plates in sides:
        if count < 2 * len(plates):
            raise DataSetError(
                f"{count} fields of view to {side} are too few for {len(plates)} groups with both classes; "
                "ask for more, or for fewer groups"
            )

    def fovs() -> Iterator[LabelledFov]:
        index = 0
        for side, count, plates in sides:
            for n in range(count):
                senescent = bool(n % 2)
                # Pairs of both classes go to one plate after the other.
                plate = f"plate_{plates[n // 2 % len(plates)]}"
                pixels = synthesize(seed, index, senescent=senescent, height=height, width=width).pixels
                label = "senescent" if senescent else "control"
                yield LabelledFov(f"{plate}/{side}_{n:04d}.tif", pixels, label, plate, side)
                index += 1

    with new_folder(out) as folder:
        write_fovs(folder, fovs(), train + test, CHANNELS, report)
        (folder / SYNTHETIC_NAME).write_text(
            "Synthetic fields of view, made by `senoscope-train synthesize`; not for science.\n"
        )
