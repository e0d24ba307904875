"""Conversion of the paper's pickled arrays into a data set folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pooch

from senoscope_training.dataset.download import RECORD, published_md5s
from senoscope_training.dataset.faults import suggest
from senoscope_training.dataset.model import DataSetError
from senoscope_training.dataset.pickles import read_pickle
from senoscope_training.dataset.writing import LabelledFov, new_folder, write_fovs
from senoscope_training.workers.progress import Progress, Report, silent

KEYS = ("train_data", "train_label", "test_data", "test_label")
SUFFIXES = frozenset({".pickle", ".pkl", ".p", ".pck"})
CHANNELS = ("SRS", "TPEF", "Transmission")
CLASSES = ("control", "senescent")  # of the labels 0 and 1
SOURCE_NAME = "source.json"


def import_pickles(
    sources: Sequence[Path],
    out: Path,
    *,
    trust: bool = False,
    published: Callable[[], Collection[str]] = published_md5s,
    report: Report = silent,
) -> int:
    """Write a data set folder from pickles of arrays, and return the number of fields of view.

    Parameters
    ----------
    sources : sequence of Path
        Pickles, or folders of pickles. Together they contain ``train_data``, ``train_label``,
        ``test_data`` and ``test_label``, or the two of one side: in one dictionary, in several, or as one
        array per file that has the key in its name.
    out : Path
        Folder to create; it must not exist.
    trust : bool
        Accept pickles other than those of the Zenodo record, too.
    published : callable
        Returns the MD5 sums of the record's files; not called with ``trust``.

    Raises
    ------
    UnsafePickle
        If a pickle contains anything but plain arrays. Nothing in it was executed.
    DataSetError
        If a pickle is not one of the record's files, if arrays are missing or do not fit together, or if
        ``out`` exists. Nothing was written.
    """
    found: dict[str, Any] = {}
    digests: dict[str, str] = {}
    paths = _pickles_in(sources)
    md5s = () if trust else published()
    for path in paths:
        if not trust and pooch.file_hash(path, "md5") not in md5s:
            raise DataSetError(
                f"{path.name} is not a file of Zenodo record {RECORD}: its MD5 is not in the record. Pickles "
                "from other sources are read only if you pass --trust"
            )
    for path in paths:
        report(Progress("reading", detail=path.name))
        for key, value in _keyed(read_pickle(path), path).items():
            if key in found:
                raise DataSetError(
                    f"{path.name} contains {key}, which another file contains too; pass only one of them"
                )
            found[key] = value
        digests[path.name] = pooch.file_hash(path)
    sides = {
        side: _side(found, side)
        for side in ("train", "test")
        if f"{side}_data" in found or f"{side}_label" in found
    }
    if not sides:
        raise DataSetError(
            f"no file contains one of the keys {', '.join(KEYS)}; check that these are the record's files"
        )

    def fovs() -> Iterator[LabelledFov]:
        for side, (data, labels) in sides.items():
            for n, (pixels, label) in enumerate(zip(data, labels, strict=True)):
                split = side if len(sides) == 2 else ""
                yield LabelledFov(f"{side}/{side}_{n:04d}.tif", _supported(pixels), label, split=split)

    total = sum(len(labels) for _, labels in sides.values())
    with new_folder(out) as folder:
        write_fovs(folder, fovs(), total, CHANNELS, report)
        record = {"made_by": "senoscope-train import-zenodo", "sha256": digests}
        (folder / SOURCE_NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return total


def _pickles_in(sources: Sequence[Path]) -> list[Path]:
    paths: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES)
            if not inside:
                raise DataSetError(f"{source} contains no pickle ({', '.join(sorted(SUFFIXES))})")
            paths += inside
        elif source.is_file():
            paths.append(source)
        else:
            raise DataSetError(f"{source} does not exist")
    return paths


def _keyed(value: Any, path: Path) -> dict[str, Any]:
    """Return the arrays of a file by key."""
    if isinstance(value, dict):
        known = {key: value[key] for key in KEYS if key in value}
        if not known:
            keys = ", ".join(ascii(key)[:40] for key in list(value)[:8])
            raise DataSetError(f"{path.name} contains the keys {keys}; one of {', '.join(KEYS)} is required")
        return known
    named = [key for key in KEYS if key in path.stem.lower()]
    if len(named) != 1:
        raise DataSetError(
            f"{path.name} contains a single {type(value).__name__} without a key; rename the file so that "
            f"its name contains one of {', '.join(KEYS)}"
        )
    return {named[0]: value}


def _side(found: dict[str, Any], side: str) -> tuple[npt.NDArray[Any], list[str]]:
    """Return pixels [N, C, H, W] in the file's data type, and the label of each field of view."""
    for key in (f"{side}_data", f"{side}_label"):
        if key not in found:
            raise DataSetError(f"{key} is missing; pass the file that contains it, too")
    data = _images(found[f"{side}_data"], f"{side}_data")
    labels = _labels(found[f"{side}_label"], f"{side}_label")
    if len(data) != len(labels):
        raise DataSetError(
            f"{side}_data contains {len(data)} fields of view, but {side}_label {len(labels)} labels; the "
            "numbers must be equal"
        )
    if not labels:
        raise DataSetError(f"{side}_data is empty; do not pass its files")
    return data, labels


def _images(value: Any, key: str) -> npt.NDArray[Any]:
    if isinstance(value, (list, tuple)):
        if len({(getattr(one, "shape", None), str(getattr(one, "dtype", None))) for one in value}) != 1:
            raise DataSetError(f"{key} is a list of images that differ in shape or data type")
        value = np.stack([np.asarray(one) for one in value])
    if not isinstance(value, np.ndarray) or value.ndim != 4 or value.dtype.kind not in "uif":
        what = (
            f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        )
        raise DataSetError(f"{key} is {what}; numbers of shape [N, H, W, C] or [N, C, H, W] are required")
    first, last = (value.shape[axis] == len(CHANNELS) for axis in (1, 3))
    if first == last:
        raise DataSetError(
            f"{key} has shape {value.shape}: the axis of the {len(CHANNELS)} channels is "
            f"{'ambiguous' if first else 'missing'}; [N, H, W, C] or [N, C, H, W] is required"
        )
    if value.dtype.kind == "f" and not all(np.isfinite(one).all() for one in value):
        raise DataSetError(f"{key} contains pixels that are NaN or infinite; the file is damaged")
    return value if first else value.transpose(0, 3, 1, 2)


def _labels(value: Any, key: str) -> list[str]:
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty((0, 0, 0))
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind in "SU" and array.ndim == 1:
        return [_named(one.decode("latin1") if isinstance(one, bytes) else str(one), key) for one in array]
    if array.dtype.kind in "buif" and np.isin(array, (0, 1)).all():
        if array.ndim == 2 and array.shape[1] == 2 and (array.sum(axis=1, dtype=np.float64) == 1).all():
            array = array[:, 1]
        if array.ndim == 1:
            return [CLASSES[int(one)] for one in array]
    raise DataSetError(
        f"{key} is not a list of labels, which are 0 and 1, booleans, one-hot rows, or the names "
        f"{' and '.join(CLASSES)}"
    )


def _named(text: str, key: str) -> str:
    plain = text.strip().casefold()
    if plain in ("0", "1"):
        return CLASSES[int(plain)]
    if plain in CLASSES:
        return plain
    raise DataSetError(
        f"{key} contains the label {text!a}{suggest(text, CLASSES)}; it must be {' or '.join(CLASSES)}"
    )


def _supported(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert a field of view to uint8, uint16 or float32, whichever preserves its values."""
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:
        return pixels.astype(pixels.dtype.newbyteorder("="))
    return pixels.astype(np.float32)
