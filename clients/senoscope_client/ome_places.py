"""Where and how finely the planes of an OME-TIFF file were taken, as its OME-XML tells.

Only of XML that `senoscope_client.ome` has found harmless.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree as ET

from senoscope_client.wire import Position

# Lengths that OME knows, in micrometres. Its "reference frame", the default of positions, is none.
_UM: Final = {"nm": 1e-3, "µm": 1.0, "\N{GREEK SMALL LETTER MU}m": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}


@dataclass(frozen=True)
class ImagePlaces:
    """What is told of one image.

    Attributes
    ----------
    channels : tuple of str
        Their names, where there are any.
    pixel_size_um : float or None
        Edge of a pixel along the rows.
    positions : dict of (t, z) to Position
        Where the stage stood, by time point and slice.
    """

    channels: tuple[str, ...] | None = None
    pixel_size_um: float | None = None
    positions: Mapping[tuple[int, int], Position] = field(default_factory=dict)

    def position(self, t: int, z: int) -> Position | None:
        """Where the stage stood; where only one place is told, it is that of all planes."""
        if len(self.positions) == 1:
            return next(iter(self.positions.values()))
        return self.positions.get((t, z))


def read_places(xml: str) -> list[ImagePlaces]:
    """What OME-XML tells of each of its images, in their order."""
    root = ET.fromstring(xml)  # noqa: S314 - see the module's docstring
    return [_places(pixels) for pixels in root.iter() if pixels.tag.endswith("Pixels")]


def _places(pixels: ET.Element) -> ImagePlaces:
    names = tuple(channel.get("Name", "") for channel in pixels.findall("{*}Channel"))
    size = _length(pixels, "PhysicalSizeX", "µm")
    positions: dict[tuple[int, int], Position] = {}
    for plane in pixels.findall("{*}Plane"):
        x, y, z = (_length(plane, f"Position{axis}", None) for axis in "XYZ")
        if x is not None and y is not None:
            place = int(plane.get("TheT", 0)), int(plane.get("TheZ", 0))
            positions.setdefault(place, Position(x=x, y=y, z=z or 0.0))
    return ImagePlaces(names if any(names) else None, size if size and size > 0 else None, positions)


def _length(element: ET.Element, name: str, default_unit: str | None) -> float | None:
    """A length in micrometres; None where it is not told, or in no unit of length."""
    try:
        value = float(element.attrib[name])
    except (KeyError, ValueError):
        return None
    factor = _UM.get(element.get(f"{name}Unit", default_unit or ""))
    return value * factor if factor is not None and math.isfinite(value) else None
