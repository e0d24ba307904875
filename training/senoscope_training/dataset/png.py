"""PNG images: checked, decoded, and never taken for more channels than they have."""

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
_WHOLE_SAMPLES: Final = 8  # bits; of fewer, decoders make eight
ONE_COLOUR: Final = (
    "the file is a picture of one channel in a colour: one of its samples is taken, as a grey picture"
)
_SAVE_AGAIN: Final = "Save it again, or leave it out"


def decode_png(data: bytes, file: str) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """The planes of a PNG image, and what was assumed about it.

    Parameters
    ----------
    data : bytes
    file : str
        Its name, for messages.

    Returns
    -------
    planes : array [C, H, W]
        uint8 or uint16; C is 1 or 3. Three equal ones, a grey image saved as colours, are one, and so are
        those of an image in one colour; see `one_colour`.
    warnings : tuple of str

    Raises
    ------
    FovError
        If it is damaged or too large, has an alpha channel, or holds entries of a table of colours.
    """
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise _fault(file, "is a damaged PNG file")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    bits, colour_type = data[24], data[25]
    if not 0 < width * height <= _MAX_PIXELS:
        raise _fault(file, f"is a PNG file of {height}x{width} pixels", "Crop it to the field of view")
    # OpenCV makes zeros of rows that are missing at the end and says nothing.
    if b"IEND" not in data[-16:]:
        raise _fault(file, "is a PNG file that was cut off")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise _fault(file, "is a damaged PNG file")
    if image.ndim == 3 and image.shape[2] != 3:
        raise _fault(file, "is a PNG file with transparency", "Save it without an alpha channel")
    warnings = []
    if bits < _WHOLE_SAMPLES and colour_type != _PALETTE:
        warnings.append(f"the file's {bits}-bit numbers were scaled to 8 bits")
    if image.ndim == 2:
        return np.asarray(image[None]), tuple(warnings)
    planes = np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1))
    is_grey = bool((planes[1:] == planes[0]).all())
    if colour_type == _PALETTE:
        if not is_grey:
            problem = "holds entries of a colour table, not detector counts"
            raise _fault(file, problem, "Save it as grey (in Pillow: the mode L)")
        warnings.append("the file's colour table, of greys, was applied")
    elif is_grey:
        warnings.append("the file's three colour samples are equal: one of them is taken, as a grey picture")
    if not is_grey and (single := one_colour(planes)) is not None:
        return single, (*warnings, ONE_COLOUR)
    return planes[:1] if is_grey else planes, tuple(warnings)


def one_colour(planes: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The one plane [1, H, W] of red, green and blue that are an image of one channel, shown in a colour.

    Programs write single channels so: the samples that are not zero everywhere are equal. None for others,
    and where all samples are zero.
    """
    seen = [plane for plane in planes if plane.any()]
    if not 1 <= len(seen) < len(planes) or any((plane != seen[0]).any() for plane in seen[1:]):
        return None
    return np.asarray(seen[0][None])


def _fault(file: str, problem: str, remedy: str = _SAVE_AGAIN) -> FovError:
    return FovError(Fault("corrupt", file, problem, remedy))
