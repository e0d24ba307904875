"""PNG images, decoded strictly, with as many planes as they have channels."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from senoscope_training.dataset.faults import Fault
from senoscope_training.dataset.model import FovError

MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_MAX_PIXELS: Final = 64 * 1024 * 1024
_PALETTE: Final = 3  # colour type, PNG specification, section 11.2.1
_FULL_BITS: Final = 8  # decoders scale samples of fewer bits to 8
ONE_COLOUR: Final = (
    "the file is an RGB image of one channel in a single colour: it is read as a grey image, from one sample"
)
_SAVE_AGAIN: Final = "Save it again, or remove it"


def decode_png(data: bytes, file: str) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """Decode the planes of a PNG image; ``file`` is its name for messages.

    Returns
    -------
    planes : array [C, H, W]
        uint8 or uint16; C is 1 or 3. A grey image saved as RGB has one plane, and so has an image in a
        single colour; see `one_colour`.
    warnings : tuple of str
        Assumptions about the file.

    Raises
    ------
    FovError
        If the image is damaged or too large, has an alpha channel, or has a palette of colours.
    """
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise _fault(file, "is a damaged PNG file")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    bits, colour_type = data[24], data[25]
    if not 0 < width * height <= _MAX_PIXELS:
        raise _fault(file, f"is a PNG file of {height}x{width} pixels", "Crop it to the field of view")
    # OpenCV silently fills rows that are missing at the end with zeros.
    if b"IEND" not in data[-16:]:
        raise _fault(file, "is a truncated PNG file")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise _fault(file, "is a damaged PNG file")
    if image.ndim == 3 and image.shape[2] != 3:
        raise _fault(file, "is a PNG file with transparency", "Save it without an alpha channel")
    warnings = []
    if bits < _FULL_BITS and colour_type != _PALETTE:
        warnings.append(f"the file's {bits}-bit samples were scaled to 8 bits")
    if image.ndim == 2:
        return np.asarray(image[None]), tuple(warnings)
    planes = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
    is_grey = bool((planes[1:] == planes[0]).all())
    if colour_type == _PALETTE:
        if not is_grey:
            problem = "contains indices into a colour palette, not detector counts"
            raise _fault(file, problem, "Save it as a grey image (in Pillow: mode L)")
        warnings.append("the file's palette of greys was applied")
    elif is_grey:
        warnings.append(
            "the file's three colour samples are equal: it is read as a grey image, from one sample"
        )
    if not is_grey and (single := one_colour(planes)) is not None:
        return single, (*warnings, ONE_COLOUR)
    return planes[:1] if is_grey else planes, tuple(warnings)


def one_colour(planes: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return the plane [1, H, W] of an RGB image that shows one channel in a single colour.

    In such images some samples are zero everywhere, and the others are equal. Return None for other images,
    and if all samples are zero.
    """
    nonzero = [plane for plane in planes if plane.any()]
    if not 1 <= len(nonzero) < len(planes) or any((plane != nonzero[0]).any() for plane in nonzero[1:]):
        return None
    return np.asarray(nonzero[0][None])


def _fault(file: str, problem: str, remedy: str = _SAVE_AGAIN) -> FovError:
    return FovError(Fault("corrupt", file, problem, remedy))
