"""The cover image of a package: a field of view without and with its Grad-CAM map."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from senoscope.engine.manifest import ChannelRange
from senoscope.results.pictures import overlay_png, scale_channel


def cover_png(pixels: npt.NDArray[Any], gradcam: npt.NDArray[np.float32], bounds: ChannelRange) -> bytes:
    """Draw the two images as squares side by side, because bioimage.io requires an aspect ratio of 2:1.

    The pixels [H, W] are raw counts of the first channel, and the map [H, W] is that of the ensemble, 0..1.
    """
    grey = scale_channel(pixels, bounds.low, bounds.high)
    empty = np.zeros_like(gradcam)
    images = [
        cv2.imdecode(np.frombuffer(overlay_png(overlay, grey), np.uint8), cv2.IMREAD_COLOR)
        for overlay in (empty, gradcam)
    ]
    side = min(pixels.shape)
    top, left = ((extent - side) // 2 for extent in pixels.shape)
    squares = [image[top : top + side, left : left + side] for image in images if image is not None]
    done, buffer = cv2.imencode(".png", np.hstack(squares))
    if not done:
        raise RuntimeError("OpenCV could not encode the cover")
    return buffer.tobytes()
