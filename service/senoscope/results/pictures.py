"""Grad-CAM maps as pictures."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

Style = Literal["map", "overlay", "intensity"]
_OPACITY = 0.65


def _encode(bgr: npt.NDArray[np.uint8]) -> bytes:
    # Level 1: a live view requests these many times a second, and discards them.
    done, buffer = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise RuntimeError("OpenCV could not encode the picture")
    return buffer.tobytes()


def _colour(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Colour values in 0..1 with the inferno colour map, which is readable with colour blindness."""
    levels = (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), np.uint8)


def scale_channel(pixels: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.float32]:
    """Return a channel [H, W], scaled from its intensity range to 0..1."""
    scaled = (pixels.astype(np.float32) - low) / (high - low)
    return np.asarray(np.clip(scaled, 0, 1), np.float32)


def map_png(gradcam: npt.NDArray[np.float32]) -> bytes:
    """Draw a map alone, [H, W] in 0..1."""
    return _encode(_colour(gradcam))


def overlay_png(gradcam: npt.NDArray[np.float32], channel: npt.NDArray[np.float32]) -> bytes:
    """Draw a map over a channel in grey; where the map is dark, the channel is visible."""
    grey = np.repeat((channel * 255)[..., None], 3, axis=2)
    alpha = _OPACITY * gradcam[..., None]
    blended = grey * (1 - alpha) + _colour(gradcam).astype(np.float32) * alpha
    return _encode((blended + 0.5).astype(np.uint8))


def intensity_png(gradcam: npt.NDArray[np.float32], channel: npt.NDArray[np.float32]) -> bytes:
    """Draw a map weighted with a channel's intensity, as in the lower rows of the paper's Figure 6."""
    return _encode(_colour(gradcam * channel))
