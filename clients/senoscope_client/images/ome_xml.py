"""Reader of the OME-XML of a TIFF file: the content of its pages, stage positions and pixel sizes.

OME-XML is checked before memory is allocated for its content.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree as ET

import numpy as np

from senoscope_client.errors import UnreadableImage
from senoscope_client.images.axes import ReadOptions
from senoscope_client.images.tiff_page_check import Directories
from senoscope_client.wire.messages import Position

_MAX_LENGTH = 4 * 1024 * 1024
# Start and end tags of elements; a large file with many planes has some thousands.
_MAX_XML_TAGS = 200_000
_MAX_PLANES = 1_000_000
_COUNTS = re.compile(r"Size[XYZCT]|First[ZCT]|IFD|NumPlanes|PlaneCount|SamplesPerPixel")
# OME's units of length in micrometres. "reference frame", the default unit of positions, is not a length.
_UM: Final = {"nm": 1e-3, "µm": 1.0, "\N{GREEK SMALL LETTER MU}m": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}


@dataclass(frozen=True)
class OmeImage:
    """The declaration of one image.

    Attributes
    ----------
    axes : str
        Of the planes, the slowest first, such as TZC.
    sizes : tuple of int
        Planned lengths of these axes.
    height, width, samples : int
        Of each plane.
    pages : dict of int to int
        The number of the page in this file, by the number of the plane in C order of ``axes``.
    elsewhere : int
        Number of planes that are declared to be in other files.
    pixel_type : str
    channels : tuple of str or None
        Names of the channels, if there are any.
    pixel_size_um : float or None
        Edge of a pixel along the rows.
    positions : dict of (t, z) to Position
        Stage positions, by time point and slice.
    """

    axes: str
    sizes: tuple[int, ...]
    height: int
    width: int
    samples: int
    pages: Mapping[int, int]
    elsewhere: int
    pixel_type: str
    channels: tuple[str, ...] | None = None
    pixel_size_um: float | None = None
    positions: Mapping[tuple[int, int], Position] = field(default_factory=dict)

    def position(self, t: int, z: int) -> Position | None:
        """Return the stage position of a plane; a single position applies to all planes."""
        if len(self.positions) == 1:
            return next(iter(self.positions.values()))
        return self.positions.get((t, z))


def check_ome_xml(xml: str, directories: Directories, options: ReadOptions) -> None:
    """Check that OME-XML is harmless, and declares no more planes than the file can hold.

    Raises
    ------
    UnreadableImage
    """
    pages, name = directories.chain, options.name
    # Only the expansion of entities is dangerous in XML; without a document type there are none.
    if re.search(r"<!(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise UnreadableImage(f"{name} has OME-XML with a document type, which OME does not allow; remove it")
    if options.trusted:
        return
    if len(xml) > _MAX_LENGTH or xml.count("<") > _MAX_XML_TAGS:
        raise UnreadableImage(f"{name} has OME-XML that is too long; save the stack without its annotations")
    try:
        root = ET.fromstring(xml)  # noqa: S314 - see above
    except ET.ParseError:
        return
    try:
        declared = max(_declared_lengths(root, pages, directories.smallest), default=0)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise _invalid_numbers_error(name) from None
    if declared > _MAX_PLANES:
        raise UnreadableImage(
            f"{name} has OME-XML that declares far more planes than its {pages} pages; save it again"
        )


def _invalid_numbers_error(name: str) -> UnreadableImage:
    return UnreadableImage(f"{name} has OME-XML with invalid numbers; save it again")


def _declared_lengths(root: ET.Element, pages: int, smallest: int) -> Iterator[int]:
    """Generate all numbers in OME-XML that determine the size of a data structure."""
    pixels = planes = 0
    for element in root.iter():
        counts = {key: int(value) for key, value in element.items() if _COUNTS.fullmatch(key)}
        if min(counts.values(), default=0) < 0:
            raise ValueError
        if element.tag.endswith("Pixels"):
            pixels += math.prod(value for key, value in counts.items() if key.startswith("Size"))
        elif element.tag.endswith("TiffData"):
            num = counts.get("PlaneCount", counts.get("NumPlanes", int("IFD" in counts)))
            planes += num or pages
            yield from counts.values()
            # Each plane is one step of a loop; real files declare few planes without a page.
            if planes > max(4 * pages, 10_000):
                yield _MAX_PLANES + planes
        elif element.tag[:-1].endswith("Along") and "Start" in element.attrib:
            start, stop = float(element.attrib["Start"]), float(element.attrib["End"])
            yield abs(math.ceil((stop - start) / float(element.get("Step", 1))))
    yield pixels // max(1, smallest)


def read_images(xml: str, pages: int, options: ReadOptions) -> list[OmeImage]:
    """Read the images that OME-XML declares for a file of some pages; return none if it is not well-formed.

    It was accepted by `check_ome_xml`, and is read element by element, because that of a long scan is large.

    Raises
    ------
    UnreadableImage
        If a number is invalid.
    """
    own = _own_uuid(xml, options.file_name, pages)
    images: list[OmeImage] = []
    try:
        images.extend(_image(pixels, pages, own) for pixels in _pixels(xml))
    except ET.ParseError:
        return []
    except (ValueError, OverflowError, KeyError):
        raise _invalid_numbers_error(options.name) from None
    return images


def _pixels(xml: str) -> Iterator[ET.Element]:
    """Generate the elements Pixels; each is deleted before the next one is read."""
    open_elements: list[ET.Element] = []
    for event, element in ET.iterparse(io.StringIO(xml), ("start", "end")):  # noqa: S314 - it is checked
        if event == "start":
            open_elements.append(element)
            continue
        open_elements.pop()
        if element.tag.endswith("Pixels"):
            yield element
        if len(open_elements) == 1:  # a child of the root, such as an Image
            open_elements[0].clear()


def _own_uuid(xml: str, file_name: str, pages: int) -> str | None:
    """Return the identifier by which the XML refers to the file that contains it; None if it has none."""
    root = re.search(r"<(?:\w+:)?OME\b[^>]*?\bUUID\s*=\s*[\"']([^\"']*)[\"']", xml)
    if root:
        return root[1].strip()
    named = re.findall(r"<(?:\w+:)?UUID\b[^>]*?FileName\s*=\s*[\"']([^\"']*)[\"'][^>]*>([^<]*)<", xml)
    for called, uuid in named:
        if called.lower() == file_name.lower():
            return str(uuid).strip()
    # The file was renamed: all planes are in one file, and their number is that of its pages.
    if len({uuid for _, uuid in named}) == 1 and len(named) == pages:
        return str(named[0][1]).strip()
    return None


def _image(element: ET.Element, pages: int, own: str | None) -> OmeImage:
    axes = element.attrib["DimensionOrder"][::-1][:-2]
    channels = element.findall("{*}Channel")
    samples = max(1, int(channels[0].get("SamplesPerPixel", 1))) if channels else 1
    if any(int(channel.get("SamplesPerPixel", 1)) != samples for channel in channels):
        raise ValueError
    sizes = tuple(int(element.attrib[f"Size{axis}"]) // (samples if axis == "C" else 1) for axis in axes)
    if set(axes) - set("TZC") or min(sizes) < 1:
        raise ValueError
    page_of: dict[int, int] = {}
    elsewhere = 0
    blocks = element.findall("{*}TiffData")
    for block in blocks:
        first = int(block.get("IFD", 0))
        count = int(block.get("PlaneCount", block.get("NumPlanes", int("IFD" in block.attrib)))) or pages
        if first < 0:
            raise ValueError
        uuid = block.find("{*}UUID")
        if uuid is not None and (uuid.text or "").strip() != own:
            elsewhere += count
            continue
        index = tuple(int(block.get(f"First{axis}", 0)) for axis in axes)
        if not all(0 <= i < size for i, size in zip(index, sizes, strict=True)):
            continue  # outside the image, as after cropping in ImageJ
        start = int(np.ravel_multi_index(index, sizes))
        for n in range(max(0, min(count, pages - first, math.prod(sizes) - start))):
            page_of[start + n] = first + n
    names = tuple(channel.get("Name") or channel.get("Fluor") or "" for channel in channels)
    size = _length(element, "PhysicalSizeX", "µm")
    return OmeImage(
        axes=axes,
        sizes=sizes,
        height=int(element.attrib["SizeY"]),
        width=int(element.attrib["SizeX"]),
        samples=samples,
        pages=page_of,
        elsewhere=elsewhere,
        pixel_type=element.get("Type", element.get("PixelType", "")).lower(),
        channels=names if any(names) else None,
        pixel_size_um=size if size and size > 0 else None,
        positions=_positions(element),
    )


def _positions(pixels: ET.Element) -> dict[tuple[int, int], Position]:
    positions: dict[tuple[int, int], Position] = {}
    for plane in pixels.findall("{*}Plane"):
        x, y, z = (_length(plane, f"Position{axis}", None) for axis in "XYZ")
        if x is not None and y is not None:
            key = int(plane.get("TheT", 0)), int(plane.get("TheZ", 0))
            positions.setdefault(key, Position(x=x, y=y, z=z or 0.0))
    return positions


def _length(element: ET.Element, name: str, default_unit: str | None) -> float | None:
    """Return a length in micrometres; None if it is absent, or has no unit of length."""
    try:
        value = float(element.attrib[name])
    except (KeyError, ValueError):
        return None
    factor = _UM.get(element.get(f"{name}Unit", default_unit or ""))
    return value * factor if factor is not None and math.isfinite(value) else None
