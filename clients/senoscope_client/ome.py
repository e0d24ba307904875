"""What the OME-XML of a TIFF file declares, checked before anything is allocated for it.

tifffile makes lists as long as OME-XML says that there are planes, and believes it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from senoscope_client.errors import UnreadableImage

_MAX_LENGTH = 4 * 1024 * 1024
# An element and its end are two; a large file of planes has some thousands.
_MAX_MARKS = 200_000
_MAX_PLANES = 1_000_000
_COUNTS = re.compile(r"Size[XYZCT]|First[ZCT]|IFD|NumPlanes|PlaneCount|SamplesPerPixel")


def channel_names(xml: str, *, pages: int, smallest: int, name: str) -> tuple[str, ...] | None:
    """The names of the channels, from OME-XML that declares no more than the file can hold.

    Parameters
    ----------
    xml : str
    pages : int
        How many the file has.
    smallest : int
        Pixels of the smallest page.
    name : str
        Of the file, for messages.

    Returns
    -------
    tuple of str or None
        In the order of the file; None where it names none, or several images.

    Raises
    ------
    UnreadableImage
    """
    # Without a document type there are no entities to expand, which is all that is dangerous in XML.
    if re.search(r"<!(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise UnreadableImage(f"{name} has OME-XML with a document type, which OME does not allow; remove it")
    if len(xml) > _MAX_LENGTH or xml.count("<") > _MAX_MARKS:
        raise UnreadableImage(f"{name} has OME-XML of absurd length; save the stack without its annotations")
    try:
        root = ET.fromstring(xml)  # noqa: S314 - see above
    except ET.ParseError:
        return None
    try:
        declared = max(_declared(root, pages, smallest), default=0)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise UnreadableImage(f"{name} has OME-XML with senseless numbers; write it again") from None
    if declared > _MAX_PLANES:
        raise UnreadableImage(
            f"{name} has OME-XML that declares far more planes than its {pages} pages; write it again"
        )
    images = [element for element in root.iter() if element.tag.endswith("Pixels")]
    if len(images) != 1:
        return None
    names = tuple(channel.get("Name", "") for channel in images[0].findall("{*}Channel"))
    return names if any(names) else None


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
