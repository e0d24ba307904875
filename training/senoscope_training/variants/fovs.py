"""The fields of view on which variants are measured and calibrated, and those that become the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senoscope.engine.manifest import Manifest
from senoscope_client.images.axes import FovSpec
from senoscope_client.images.reader import open_fovs
from senoscope_client.simulation.synthetic import CHANNELS
from senoscope_training.config import DataConfig, InputConfig
from senoscope_training.dataset.reading import read_data_set
from senoscope_training.starter.fovs import synthetic_fovs
from senoscope_training.variants.errors import VariantError
from senoscope_training.workers.progress import Report

COUNT = 128
CALIBRATION = 32
REFERENCE = 32
_NO_FOVS = (
    "there are no fields of view to measure on: pass --data FOLDER (a labelled data set, best the one that "
    "the ensemble was trained and tested on) or --fovs FILE"
)


@dataclass(frozen=True)
class VariantFovs:
    """Raw counts, of which none are in both sets.

    Attributes
    ----------
    measured : array [N, C, H, W]
        On which variants are compared with fp32.
    calibration : array [M, C, H, W]
        For ranges and corrections; only for variants.
    labels : bool array [N], optional
        Whether each of ``measured`` is of the positive class.
    source : str
        Description of ``measured``, for the manifest.
    """

    measured: npt.NDArray[Any]
    calibration: npt.NDArray[Any]
    labels: npt.NDArray[np.bool_] | None
    source: str

    def reference(self) -> list[int]:
        """Return indices of at most 32 of ``measured``, of both classes alike if they have labels."""
        labels = np.zeros(len(self.measured), np.bool_) if self.labels is None else self.labels
        return evenly_chosen(labels, REFERENCE)


def evenly_chosen(labels: npt.ArrayLike, count: int) -> list[int]:
    """Return at most ``count`` indices, as many of each class as possible, evenly distributed in each."""
    truth = np.asarray(labels, np.bool_)
    members = [np.flatnonzero(truth == value) for value in (False, True)]
    fewer = min(len(group) for group in members)
    shares = [min(len(group), max(count // 2 if fewer else count, count - fewer)) for group in members]
    chosen = [group[np.arange(n) * len(group) // n] for group, n in zip(members, shares, strict=True) if n]
    return sorted(np.concatenate(chosen).tolist()) if chosen else []


def synthetic_for(manifest: Manifest, count: int) -> VariantFovs:
    """Return labelled synthetic FOVs for an ensemble trained on such, none of which it was trained on.

    Raises
    ------
    VariantError
        If the ensemble was trained on real cells.
    """
    if manifest.for_science or manifest.input.channel_names != CHANNELS:
        raise VariantError(f"{manifest.name} was not trained on synthetic fields of view, and {_NO_FOVS}")
    seed = int(manifest.training.config.get("seed", 0)) + 1
    spec = manifest.input
    made = synthetic_fovs(seed, 0, count + CALIBRATION, spec.height, spec.width)
    source = f"{count} synthetic fields of view (seed {seed}, which the training did not use)"
    return VariantFovs(made.pixels[:count], made.pixels[count:], made.labels[:count], source)


def from_files(manifest: Manifest, files: Sequence[Path], count: int) -> VariantFovs:
    """Return FOVs of TIFF and NPY files, without labels."""
    spec = FovSpec(manifest.input.channel_names, manifest.input.height, manifest.input.width)
    pixels = []
    for path in files:
        with open_fovs(path, spec, name=str(path)) as stack:
            pixels += [stack.read(n) for n in range(len(stack))]
    names = ", ".join(path.name for path in files)
    return _divided(np.stack(pixels), None, count, f"of {names}"[:1000])


def from_data_set(manifest: Manifest, data: DataConfig, count: int, report: Report) -> VariantFovs:
    """Return the FOVs of a data set that the ensemble was tested on; of another data set, all of them."""
    spec = manifest.input
    config = data.model_copy(update={"channels": spec.channel_names, "classes": manifest.ensemble.classes})
    found = read_data_set(config, InputConfig(height=spec.height, width=spec.width), report)
    train, test = (_files_of(manifest, side) for side in ("train", "test"))
    digests = [entry.sha256 for entry in found.data_set.entries]
    tested = [k for k, sha256 in enumerate(digests) if sha256 in test]
    trained = [k for k, sha256 in enumerate(digests) if sha256 in train]
    chosen = tested or [k for k, sha256 in enumerate(digests) if sha256 not in train]
    if not chosen:
        raise VariantError(f"{manifest.name} was trained on all fields of view of {data.path}: pass others")
    kind = "that the ensemble was tested on" if tested else f"of {data.path.name}"
    labels, pixels = found.data_set.labels, found.pixels
    if len(trained) < CALIBRATION:
        return _divided(pixels[chosen], labels[chosen], count, kind)
    measured = np.array(chosen)[evenly_chosen(labels[chosen], count)]
    calibration = np.array(trained)[evenly_chosen(labels[trained], CALIBRATION)]
    source = f"{len(measured)} fields of view {kind}"
    return VariantFovs(pixels[measured], pixels[calibration], labels[measured], source)


def _files_of(manifest: Manifest, side: str) -> set[str]:
    """Return digests of the files that the ensemble was trained or tested on; the starter lists none."""
    entries = manifest.training.split.get(side)
    return {entry["sha256"] for entry in entries} if isinstance(entries, list) else set()


def _divided(
    pixels: npt.NDArray[Any], labels: npt.NDArray[np.bool_] | None, count: int, kind: str
) -> VariantFovs:
    """Divide FOVs: at most one in four, and no more than needed, are for calibration."""
    truth = np.zeros(len(pixels), np.bool_) if labels is None else labels
    aside = evenly_chosen(truth, min(CALIBRATION, len(pixels) // 4))
    rest = np.setdiff1d(np.arange(len(pixels)), aside)
    measured = rest[evenly_chosen(truth[rest], count)]
    kept = None if labels is None else labels[measured]
    return VariantFovs(pixels[measured], pixels[aside], kept, f"{len(measured)} fields of view {kind}")
