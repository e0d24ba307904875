"""What the OME-XML of a TIFF file declares: which page shows what, where, and how finely.

It is checked before anything is allocated for it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree as ET

from senoscope_client.errors import UnreadableImage
from senoscope_client.wire.messages import Position

_MAX_LENGTH = 4 * 1024 * 1024
# An element and its end are two; a large file of planes has some thousands.
_MAX_MARKS = 200_000
_MAX_PLANES = 1_000_000
_CHUNK = 64 * 1024
_COUNTS = re.compile(r"Size[XYZCT]|First[ZCT]|IFD|NumPlanes|PlaneCount|SamplesPerPixel")
# Lengths that OME knows, in micrometres. Its "reference frame", the default of positions, is none.
_UM: Final = {"nm": 1e-3, "µm": 1.0, "\N{GREEK SMALL LETTER MU}m": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}


@dataclass(frozen=True)
class OmeImage:
    """What is declared of one image.

    Attributes
    ----------
    axes : str
        Of the planes, the slowest first, such as TZC.
    sizes : tuple of int
        Planned lengths of these axes.
    height, width, samples : int
        Of each plane.
    pages : dict of tuple of int to int
        By index along ``axes``, the number of the page in this file.
    elsewhere : int
        Planes that are said to be in other files.
    pixel_type : str
    channels : tuple of str or None
        Their names, where there are any.
    pixel_size_um : float or None
        Edge of a pixel along the rows.
    positions : dict of (t, z) to Position
        Where the stage stood, by time point and slice.
    """

    axes: str
    sizes: tuple[int, ...]
    height: int
    width: int
    samples: int
    pages: Mapping[tuple[int, ...], int]
    elsewhere: int
    pixel_type: str
    channels: tuple[str, ...] | None = None
    pixel_size_um: float | None = None
    positions: Mapping[tuple[int, int], Position] = field(default_factory=dict)

    def position(self, index: tuple[int, ...]) -> Position | None:
        """Where the stage stood for a plane; where only one place is given, it is that of all planes."""
        if len(self.positions) == 1:
            return next(iter(self.positions.values()))
        at = dict(zip(self.axes, index, strict=True))
        return self.positions.get((at.get("T", 0), at.get("Z", 0)))


def check(xml: str, *, pages: int, smallest: int, trusted: bool, name: str) -> None:
    """Check that OME-XML is harmless, and declares no more than the file can hold.

    Parameters
    ----------
    xml : str
    pages : int
        How many the file has.
    smallest : int
        Pixels of the smallest page.
    trusted : bool
        The file is the user's own, and may be long.
    name : str
        Of the file, for messages.

    Raises
    ------
    UnreadableImage
    """
    # Without a document type there are no entities to expand, which is all that is dangerous in XML.
    if re.search(r"<!(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise UnreadableImage(f"{name} has OME-XML with a document type, which OME does not allow; remove it")
    if trusted:
        return
    if len(xml) > _MAX_LENGTH or xml.count("<") > _MAX_MARKS:
        raise UnreadableImage(f"{name} has OME-XML of absurd length; save the stack without its annotations")
    try:
        root = ET.fromstring(xml)  # noqa: S314 - see above
    except ET.ParseError:
        return
    try:
        declared = max(_declared(root, pages, smallest), default=0)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise _senseless(name) from None
    if declared > _MAX_PLANES:
        raise UnreadableImage(
            f"{name} has OME-XML that declares far more planes than its {pages} pages; write it again"
        )


def _senseless(name: str) -> UnreadableImage:
    return UnreadableImage(f"{name} has OME-XML with senseless numbers; write it again")


def _declared(root: ET.Element, pages: int, smallest: int) -> Iterator[int]:
    """Each number in OME-XML that something is as long as."""
    pixels = planes = 0
    for element in root.iter():
        known = {key: int(value) for key, value in element.items() if _COUNTS.fullmatch(key)}
        if min(known.values(), default=0) < 0:
            raise ValueError
        if element.tag.endswith("Pixels"):
            pixels += math.prod(value for key, value in known.items() if key.startswith("Size"))
        elif element.tag.endswith("TiffData"):
            num = known.get("PlaneCount", known.get("NumPlanes", int("IFD" in known)))
            planes += num or pages
            yield from known.values()
            # Each plane is one step of a loop: those that point nowhere are none of a real file's.
            if planes > max(4 * pages, 10_000):
                yield _MAX_PLANES + planes
        elif element.tag[:-1].endswith("Along") and "Start" in element.attrib:
            start, stop = float(element.attrib["Start"]), float(element.attrib["End"])
            yield abs(math.ceil((stop - start) / float(element.get("Step", 1))))
    yield pixels // max(1, smallest)


def read_images(xml: str, *, pages: int, file_name: str | None, name: str) -> list[OmeImage]:
    """The images that checked OME-XML declares; none where it is not well-formed.

    Parameters
    ----------
    xml : str
        That `check` accepted. It is read element by element: that of a night is long.
    pages : int
        How many the file has.
    file_name : str or None
        Of the file, by which its XML may call it.
    name : str
        Of the file, for messages.

    Raises
    ------
    UnreadableImage
        If a number in it makes no sense.
    """
    own = _own_uuid(xml, file_name, pages)
    images: list[OmeImage] = []
    try:
        images.extend(_image(pixels, pages, own) for pixels in _pixels(xml))
    except ET.ParseError:
        return []
    except (ValueError, OverflowError, KeyError):
        raise _senseless(name) from None
    return images


def _pixels(xml: str) -> Iterator[ET.Element]:
    """The elements Pixels, each gone when the next one comes."""
    # Its events are pairs of a name and, for these two, an element.
    parser: Any = ET.XMLPullParser(("start", "end"))
    open_elements: list[ET.Element] = []
    for at in range(0, len(xml) + _CHUNK, _CHUNK):
        if at < len(xml):
            parser.feed(xml[at : at + _CHUNK])
        else:
            parser.close()
        for event, element in parser.read_events():
            if event == "start":
                open_elements.append(element)
                continue
            open_elements.pop()
            if element.tag.endswith("Pixels"):
                yield element
            if len(open_elements) == 1:  # a child of the root, such as an Image
                open_elements[0].clear()


def _own_uuid(xml: str, file_name: str | None, pages: int) -> str | None:
    """By which identifier the XML calls the file that it is in; None if by none."""
    root = re.search(r"<(?:\w+:)?OME\b[^>]*?\bUUID\s*=\s*[\"']([^\"']*)[\"']", xml)
    if root:
        return root[1].strip()
    named = re.findall(r"<(?:\w+:)?UUID\b[^>]*?FileName\s*=\s*[\"']([^\"']*)[\"'][^>]*>([^<]*)<", xml)
    for called, uuid in named:
        if file_name is not None and called.lower() == file_name.lower():
            return str(uuid).strip()
    # A file that was renamed: all planes are in one file, and they are as many as it has.
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
    places: dict[tuple[int, ...], int] = {}
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
        start = _flat(tuple(int(block.get(f"First{axis}", 0)) for axis in axes), sizes)
        if start is None:
            continue
        for n in range(max(0, min(count, pages - first, math.prod(sizes) - start))):
            places[_index(start + n, sizes)] = first + n
    names = tuple(channel.get("Name") or channel.get("Fluor") or "" for channel in channels)
    size = _length(element, "PhysicalSizeX", "µm")
    return OmeImage(
        axes=axes,
        sizes=sizes,
        height=int(element.attrib["SizeY"]),
        width=int(element.attrib["SizeX"]),
        samples=samples,
        pages=places,
        elsewhere=elsewhere,
        pixel_type=element.get("Type", element.get("PixelType", "")).lower(),
        channels=names if any(names) else None,
        pixel_size_um=size if size and size > 0 else None,
        positions=_positions(element),
    )


def _flat(index: tuple[int, ...], sizes: tuple[int, ...]) -> int | None:
    """The number of a plane in C order; None if it lies out of the image, as ImageJ writes after cropping."""
    number = 0
    for i, size in zip(index, sizes, strict=True):
        if not 0 <= i < size:
            return None
        number = number * size + i
    return number


def _index(number: int, sizes: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for size in reversed(sizes):
        number, i = divmod(number, size)
        index.append(i)
    return tuple(reversed(index))


def _positions(pixels: ET.Element) -> dict[tuple[int, int], Position]:
    positions: dict[tuple[int, int], Position] = {}
    for plane in pixels.findall("{*}Plane"):
        x, y, z = (_length(plane, f"Position{axis}", None) for axis in "XYZ")
        if x is not None and y is not None:
            place = int(plane.get("TheT", 0)), int(plane.get("TheZ", 0))
            positions.setdefault(place, Position(x=x, y=y, z=z or 0.0))
    return positions


def _length(element: ET.Element, name: str, default_unit: str | None) -> float | None:
    """A length in micrometres; None where it is absent, or in no unit of length."""
    try:
        value = float(element.attrib[name])
    except (KeyError, ValueError):
        return None
    factor = _UM.get(element.get(f"{name}Unit", default_unit or ""))
    return value * factor if factor is not None and math.isfinite(value) else None
