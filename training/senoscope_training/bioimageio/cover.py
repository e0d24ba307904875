"""The cover picture of a package: a field of view, and the Grad-CAM map over it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from senoscope.engine.manifest import ChannelRange
from senoscope.results.pictures import overlay_png, scale_channel


def cover_png(pixels: npt.NDArray[Any], gradcam: npt.NDArray[np.float32], bounds: ChannelRange) -> bytes:
    """Both as squares side by side, because bioimage.io asks for 2:1.

    Parameters
    ----------
    pixels : array [H, W]
        The first channel, raw counts.
    gradcam : float32 array [H, W]
        The ensemble's map, 0..1.
    bounds : ChannelRange
        Of that channel.
    """
    grey = scale_channel(pixels, bounds.low, bounds.high)
    nothing = np.zeros_like(gradcam)
    pictures = [
        cv2.imdecode(np.frombuffer(overlay_png(shown, grey), np.uint8), cv2.IMREAD_COLOR)
        for shown in (nothing, gradcam)
    ]
    side = min(pixels.shape)
    top, left = ((extent - side) // 2 for extent in pixels.shape)
    squares = [picture[top : top + side, left : left + side] for picture in pictures if picture is not None]
    done, buffer = cv2.imencode(".png", np.hstack(squares))
    if not done:
        raise RuntimeError("OpenCV could not encode the cover")
    return buffer.tobytes()
