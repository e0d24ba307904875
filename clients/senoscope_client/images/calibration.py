"""Calibration: conversion of the stored numbers of a file to detector counts.

ImageJ has no signed 16-bit images: it adds 32768, and writes a calibration that subtracts it again. Other
programs write a scale and an offset. If these are ignored, images are tens of thousands of counts too bright.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import UnreadableImage

_STRAIGHT_LINE: Final = 0
_SIGNED_16_BIT: Final = 32768.0
_ZERO_PERCENTILE: Final = 1.0
_MAX_XML: Final = 1024 * 1024


@dataclass(frozen=True)
class Calibration:
    """A linear calibration: counts = ``offset`` + ``slope`` x stored number.

    Attributes
    ----------
    offset, slope : float
    source : str
        Metadata that declare the calibration.
    """

    offset: float
    slope: float
    source: str

    def __str__(self) -> str:
        return f"{self.offset:g} + {self.slope:g} x stored number ({self.source})"

    def apply(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Convert stored numbers to counts."""
        counts = stored.astype(np.float64)
        counts *= self.slope
        counts += self.offset
        return counts.astype(np.float32)


def zero_levels(pixels: npt.NDArray[Any]) -> tuple[float, ...]:
    """Return the zero level (first percentile) of each channel of fields of view [N, C, H, W].

    It differs between files of one detector only by noise. A difference of thousands shows that the stored
    numbers of the files have different meanings.
    """
    return tuple(float(np.percentile(pixels[:, c], _ZERO_PERCENTILE)) for c in range(pixels.shape[1]))


def imagej_calibration(description: Mapping[str, str], dtype: np.dtype[Any], name: str) -> Calibration | None:
    """Read the calibration function of an ImageJ file; return None if its numbers are counts.

    ``description`` holds its lines ``key=value``, ``dtype`` is that of the stored numbers.

    Raises
    ------
    UnreadableImage
        If the function is not linear or invalid.
    """
    # ImageJ calibrates neither colours nor 32-bit images; coefficients without a function have no effect.
    if "cf" not in description or dtype.kind == "f" or dtype.itemsize > 2:
        return None
    try:
        function = int(description["cf"])
        offset, slope = float(description.get("c0", 0)), float(description.get("c1", 1))
    except ValueError:
        function, offset, slope = -1, math.nan, math.nan
    if function != _STRAIGHT_LINE:
        raise UnreadableImage(
            f"{name} has an ImageJ calibration that is not a straight line (cf={description['cf'][:20]}): "
            "its numbers are not detector counts. Save it without calibration (Analyze > Calibrate, function "
            "None)"
        )
    if not (math.isfinite(offset) and math.isfinite(slope) and slope):
        raise UnreadableImage(
            f"{name} has an ImageJ calibration whose coefficients are not numbers (c0, c1); save it again"
        )
    if dtype.kind == "i":  # ImageJ adds 32768 when it reads signed numbers, before it applies the function
        offset += slope * _SIGNED_16_BIT
    return _unless_identity(Calibration(offset, slope, "calibration of ImageJ"))


def gdal_calibration(xml: str, name: str) -> Calibration | None:
    """Read scale and offset in the tag GDAL_METADATA; return None if there are none, or only the identity.

    Raises
    ------
    UnreadableImage
        If they differ between samples, or are invalid.
    """
    if len(xml) > _MAX_XML or re.search(r"<!(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise UnreadableImage(f"{name} has GDAL metadata that are too long or have a DOCTYPE; remove them")
    try:
        root = ET.fromstring(xml)  # noqa: S314 - without a document type there are no entities to expand
    except ET.ParseError:
        return None
    found: dict[str, set[float]] = {"scale": set(), "offset": set()}
    for item in root.iter("Item"):
        role = (item.get("role") or item.get("name") or "").lower()
        if role in found:
            try:
                found[role].add(float(item.text or ""))
            except ValueError:
                found[role].add(math.nan)
    slope, offset = found["scale"] or {1.0}, found["offset"] or {0.0}
    values = (*offset, *slope)
    if len(values) != 2 or not all(map(math.isfinite, values)) or 0.0 in slope:
        raise UnreadableImage(
            f"{name} declares different scales or offsets for its samples, or invalid ones (GDAL_METADATA); "
            "save the counts themselves"
        )
    return _unless_identity(Calibration(values[0], values[1], "GDAL_METADATA"))


def _unless_identity(calibration: Calibration) -> Calibration | None:
    return None if (calibration.offset, calibration.slope) == (0.0, 1.0) else calibration
