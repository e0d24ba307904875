"""Reads reference fields of view, and their outputs in fp32, without trusting the files."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from senoscope.engine.errors import EnsembleError
from senoscope.engine.gate import GateOutputs
from senoscope.engine.intensity import as_real_numbers
from senoscope.engine.manifest import Manifest
from senoscope.engine.manifest_variants import Reference
from senoscope_client.images import npy

Float32 = npt.NDArray[np.float32]
_MAX_HEADER_BYTES: Final = 16 * 1024
# Of all expected outputs together: a thousand fields of view of seven networks take 10 MiB.
_MAX_EXPECTED_BYTES: Final = 512 * 1024 * 1024


@dataclass(frozen=True)
class ReferenceFovs:
    """Reference fields of view, and what the ensemble outputs for them in fp32.

    Attributes
    ----------
    fovs : array [N, C, H, W]
        Raw counts; mapped from the file.
    expected : GateOutputs
    labels : tuple of N bool, optional
    """

    fovs: npt.NDArray[Any]
    expected: GateOutputs
    labels: tuple[bool, ...] | None


def read_fovs(path: Path, shape: tuple[int, ...], purpose: str) -> npt.NDArray[Any]:
    """Map an NPY file of fields of view into memory; a header with a huge shape allocates nothing.

    Parameters
    ----------
    shape : tuple of int
        [C, H, W], or [N, C, H, W].
    purpose : str
        For the message of an error.

    Raises
    ------
    EnsembleError
        If the file has another shape, has a value that the networks cannot take, or cannot be read.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        if array.dtype.kind not in "uif" or array.shape != shape:
            raise ValueError(f"it is {array.dtype} {array.shape}; expected numbers of shape {shape}")
        for fov in array.reshape(-1, *shape[-3:]):  # one at a time, to save memory
            as_real_numbers(np.array(fov))
    except (ValueError, OSError, EOFError) as error:
        raise EnsembleError(path, f"cannot be used as {purpose}: {error}") from error
    return array


def read_reference(directory: Path, manifest: Manifest, reference: Reference) -> ReferenceFovs:
    """Read the reference set of an ensemble; the hashes of its files must have been verified.

    Raises
    ------
    EnsembleError
        If a file does not match the manifest.
    """
    shape = reference.fovs, *manifest.input.shape
    fovs = read_fovs(directory / reference.file, shape, "reference fields of view")
    return ReferenceFovs(fovs, _read_expected(directory, manifest, reference), reference.labels)


def _read_expected(directory: Path, manifest: Manifest, reference: Reference) -> GateOutputs:
    path = directory / reference.expected
    count = reference.fovs
    if sum(4 * count * (1 + rows * cols) for rows, cols in _grids(manifest)) > _MAX_EXPECTED_BYTES:
        raise EnsembleError(path, f"holds more than {_MAX_EXPECTED_BYTES // 1024**2} MiB of expected outputs")
    probabilities, gradcams = {}, {}
    try:
        with zipfile.ZipFile(path) as archive:
            for network in manifest.networks:
                name = network.name
                probabilities[name] = _read_member(archive, f"{name}.probability", (count,))
                gradcams[name] = _read_member(archive, f"{name}.gradcam", (count, *network.gradcam_grid))
                if not (probabilities[name] <= 1).all():
                    raise ValueError(f"{name}.probability has values greater than 1")
    except Exception as error:  # zipfile and its decompressors raise half a dozen unrelated classes
        problem = error.args[0] if isinstance(error, KeyError) else error
        raise EnsembleError(path, f"cannot be used as expected outputs: {problem}") from error
    return GateOutputs(probabilities, gradcams)


def _grids(manifest: Manifest) -> list[tuple[int, int]]:
    return [network.gradcam_grid for network in manifest.networks]


def _read_member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> Float32:
    """Return an array of the archive; no more than its bytes are decompressed."""
    limit = 4 * int(np.prod(shape)) + _MAX_HEADER_BYTES
    with archive.open(f"{name}.npy") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{name} is larger than its shape {shape} takes")
    array = npy.read_array(io.BytesIO(content), len(content), name)
    if array.dtype != np.float32 or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}; expected float32 {shape}")
    if not np.isfinite(array).all() or array.min() < 0:
        raise ValueError(f"{name} has negative or infinite values")
    return array
