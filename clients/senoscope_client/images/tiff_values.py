"""Meaning of the stored numbers of a page of a TIFF file, from its tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from senoscope_client.errors import UnreadableImage
from senoscope_client.images.calibration import Calibration, gdal_calibration
from senoscope_client.images.notices import Notice
from senoscope_client.images.sanitize import sanitize_for_display

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _MASK, _LINEAR_RAW = 0, 1, 2, 3, 4, 34892
_PHOTOMETRIC, _COLOUR_MAP, _ORIENTATION = 262, 320, 274
_MD_FILE_TAG, _GDAL_METADATA, _GDAL_NODATA = 33445, 42112, 42113
_SAMPLE_FORMAT, _UNDEFINED = 339, 4
_SQUARE_ROOTS: Final = 2
_COLOURS: Final = {
    5: "CMYK",
    6: "YCbCr",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "a colour filter array",
}
# Tags that declare conversions of the numbers, which are not applied.
_NOT_APPLIED: Final = {
    291: "GrayResponseCurve",
    301: "TransferFunction",
    50712: "LinearizationTable",
    50714: "BlackLevel",
}


def interpret_values(page: Any, name: str) -> tuple[Calibration | None, tuple[Notice, ...]]:
    """Return the calibration of the numbers of a page, and notices about them.

    Raises
    ------
    UnreadableImage
        If they cannot be counts: colours of another space, entries of a colour table, square roots.
    """
    notices = []
    photometric = int(page.tags.valueof(_PHOTOMETRIC, _BLACK_IS_ZERO))
    if photometric == _WHITE_IS_ZERO:
        text = "the file declares that 0 is white (MinIsWhite): its numbers are not inverted"
        notices.append(Notice("values", text))
    elif photometric == _PALETTE:
        notices.append(_palette_notice(page, name))
    elif photometric not in {_BLACK_IS_ZERO, _RGB, _MASK, _LINEAR_RAW}:
        kind = _COLOURS.get(photometric, f"photometric interpretation {photometric}")
        raise UnreadableImage(
            f"{name} holds colours ({kind}), not detector counts; save each detector as one channel"
        )
    orientation = page.tags.valueof(_ORIENTATION, 1)
    if orientation != 1:
        text = f"the images were turned as the file's tag Orientation ({orientation}) declares"
        notices.append(Notice("orientation", text))
    if page.tags.valueof(_MD_FILE_TAG) == _SQUARE_ROOTS:
        raise UnreadableImage(
            f"{name} holds square roots of counts (a gel scanner's file); save it with linear numbers"
        )
    for code, tag in _NOT_APPLIED.items():
        value = page.tags.valueof(code)
        if value is not None and np.any(np.asarray(value, dtype=object) != 0):
            notices.append(Notice("values", f"the file's tag {tag} is not applied to its numbers"))
    if page.tags.get(_GDAL_NODATA) is not None:
        value = sanitize_for_display(str(page.tags.valueof(_GDAL_NODATA)).strip(), 20)
        notices.append(Notice("values", f"pixels without data ({value}) are used like all others"))
    sample_format = page.tags.valueof(_SAMPLE_FORMAT, 1)
    if _UNDEFINED in (sample_format if isinstance(sample_format, tuple) else (sample_format,)):
        text = f"the file does not declare the type of its numbers: they are taken as {page.dtype}"
        notices.append(Notice("values", text))
    xml = page.tags.valueof(_GDAL_METADATA)
    return gdal_calibration(xml, name) if isinstance(xml, str) else None, tuple(notices)


def _palette_notice(page: Any, name: str) -> Notice:
    """Return the notice about a colour table whose colours are proportional to the number; reject others."""
    table = page.tags.valueof(_COLOUR_MAP)
    colours = np.asarray(table, np.float64).reshape(3, -1) if table is not None else np.zeros((3, 2))
    ramp = np.linspace(0, 1, colours.shape[1])
    # Tables have 8 or 16 bits; differences of half a step of 8 bits are rounding.
    if colours.max() <= 0 or np.abs(colours - colours[:, -1:] * ramp).max() > 65535 / 255:
        raise UnreadableImage(
            f"{name} holds entries of a colour table, not detector counts; save it as grey (in Fiji: Image > "
            "Lookup Tables > Grays, in Pillow: the mode L)"
        )
    return Notice("palette", "the file's colour table is for display only: its numbers are the counts")


def check_pixel_type(
    read: Callable[[int], npt.NDArray[Any]], declared: str, dtype: np.dtype[Any], name: str
) -> tuple[Callable[[int], npt.NDArray[Any]], tuple[Notice, ...]]:
    """Return a reader that rejects pixels whose value differs between the types in OME-XML and in the tags.

    ``declared`` is the type in OME-XML, ``dtype`` that in the tags.

    Raises
    ------
    UnreadableImage
        If all values differ: the types have the same size, and one is a float.
    """
    try:
        other = np.dtype({"float": "float32", "double": "float64"}.get(declared, declared or dtype.name))
    except TypeError:
        return read, (Notice("values", f"the OME-XML declares pixels of the unknown type {declared[:20]!r}"),)
    if other == dtype or {other.kind, dtype.kind} - set("iuf"):
        return read, ()
    contradiction = (
        f"{name} is contradictory: its OME-XML declares {other.name} pixels, its pages {dtype.name}; save it "
        "again"
    )
    if other.itemsize != dtype.itemsize:
        text = f"the OME-XML declares {other.name} pixels, the pages {dtype.name}, which is taken"
        return read, (Notice("values", text),)
    if "f" in {other.kind, dtype.kind}:
        raise UnreadableImage(contradiction)
    positive = 2 ** (8 * dtype.itemsize - 1) - 1

    def read_checked(n: int) -> npt.NDArray[Any]:
        plane = read(n)
        if plane.size and (plane.min() < 0 or plane.max() > positive):
            raise UnreadableImage(contradiction)
        return plane

    return read_checked, ()
