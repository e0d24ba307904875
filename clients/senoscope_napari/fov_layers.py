"""The layers of one field of view: one per channel, and its Grad-CAM above them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image

from senoscope_client.models.result import Result
from senoscope_napari.camera import centre_on, fit, size_of
from senoscope_napari.gradcam import Map

# Transmission is hidden at first, because its brightness covers the other channels.
_COLOURS: Final = {"SRS": "green", "TPEF": "magenta", "Transmission": "gray"}
_OTHERS: Final = ("cyan", "yellow", "bop orange", "bop blue")
_HIDDEN: Final = frozenset({"Transmission"})
GRADCAM_NAME: Final = "Grad-CAM"
_UM: Final = ("um", "um")


@dataclass(frozen=True)
class Placement:
    """Position of the pixels of a field of view in the world coordinates of the viewer.

    Attributes
    ----------
    scale, translate : (float, float)
        Size of a pixel, and centre of the first pixel; rows before columns.
    units : tuple
        Of both axes.
    """

    scale: tuple[float, float]
    translate: tuple[float, float]
    units: tuple[Any, ...] = _UM

    @classmethod
    def on_stage(cls, centre_um: tuple[float, float], shape: tuple[int, int], pixel_um: float) -> Placement:
        """Return the placement of a field of view around a stage position (x, y)."""
        x, y = centre_um
        top, left = (at - (n - 1) / 2 * pixel_um for at, n in ((y, shape[0]), (x, shape[1])))
        return cls((pixel_um, pixel_um), (top, left))

    @classmethod
    def of_layer(cls, layer: Image) -> Placement:
        """Return the placement of the last two axes of a layer."""
        return cls(tuple(layer.scale[-2:]), tuple(layer.translate[-2:]), tuple(layer.units[-2:]))


class FovLayers:
    """The layers of the field of view that is shown; deleted layers are created again when needed.

    The lowest channel is opaque, like the lowest layer of napari, so that it covers the stage map; the others
    are additive.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._channels: dict[str, Image] = {}
        self._limits: dict[str, tuple[float, float]] = {}
        self._gradcam: Image | None = None
        self._size_in_view: tuple[float, ...] = ()

    def leave_view(self) -> None:
        """Record that the camera was moved elsewhere: the next field of view is fitted to the view."""
        self._size_in_view = ()

    @property
    def layers(self) -> list[Image]:
        """The layers that are in the viewer, lowest first."""
        own = {id(layer) for layer in (*self._channels.values(), self._gradcam)}
        return [layer for layer in self._viewer.layers if id(layer) in own]

    def show_channels(
        self, names: tuple[str, ...], pixels: npt.NDArray[Any], placement: Placement, result: Result
    ) -> None:
        """Show the channels [C, H, W] of a field of view."""
        if tuple(self._channels) != names:
            self._remove_channels()
        for c, name in enumerate(names):
            layer = self._channels.get(name)
            limits = _contrast_limits(pixels[c], result.normalization.low[c], result.normalization.high[c])
            if layer is None or layer not in self._viewer.layers:
                layer = self._channels[name] = self._add_channel(c, name, pixels[c], limits, placement)
            else:
                _update_layer(layer, pixels[c], placement)
                if tuple(layer.contrast_limits) != self._limits[name]:
                    continue  # they were set by the user
                # Limits are only widened, so that the brightness of fields of view can be compared.
                previous = self._limits[name]
                limits = min(previous[0], limits[0]), max(previous[1], limits[1])
            self._limits[name] = limits
            layer.contrast_limits_range = (0, max(2 * limits[1], 1.0))
            layer.contrast_limits = limits

    def show_gradcam(self, gradcam: Map, placement: Placement) -> None:
        """Show a map [H, W] with values from 0 to 1."""
        layer = self._gradcam
        if layer is None or layer not in self._viewer.layers:
            self._gradcam = self._viewer.add_image(
                gradcam,
                name=GRADCAM_NAME,
                colormap="inferno",
                blending="additive",
                opacity=0.6,
                contrast_limits=(0, 1),
                **vars(placement),
            )
        else:
            _update_layer(layer, gradcam, placement)

    def hide_channels(self) -> None:
        """Clear the channels, so that they do not show another field of view."""
        for layer in self._channels.values():
            layer.data = np.zeros_like(layer.data)

    def bring_into_view(self) -> None:
        """Move the camera to the field of view; the zoom changes only if its size has changed."""
        if self._gradcam is None or self._gradcam not in self._viewer.layers:
            return
        if size_of(self._gradcam) == self._size_in_view:
            centre_on(self._viewer, self._gradcam)
        else:
            fit(self._viewer, self._gradcam)
            self._size_in_view = size_of(self._gradcam)

    def _add_channel(
        self, c: int, name: str, plane: npt.NDArray[Any], limits: tuple[float, float], placement: Placement
    ) -> Image:
        above = self._gradcam in self._viewer.layers
        layer: Image = self._viewer.add_image(
            plane,
            name=name,
            colormap=_COLOURS.get(name, _OTHERS[c % len(_OTHERS)]),
            blending="opaque" if c == 0 else "additive",
            contrast_limits=limits,
            visible=name not in _HIDDEN,
            **vars(placement),
        )
        if above:
            self._viewer.layers.move(len(self._viewer.layers) - 1, self._viewer.layers.index(self._gradcam))
        return layer

    def _remove_channels(self) -> None:
        for layer in self._channels.values():
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._channels = {}


def _update_layer(layer: Image, data: npt.NDArray[Any], placement: Placement) -> None:
    layer.data = data
    for name, value in vars(placement).items():
        if tuple(getattr(layer, name)) != value:
            setattr(layer, name, value)


def _contrast_limits(plane: npt.NDArray[Any], trained_low: float, trained_high: float) -> tuple[float, float]:
    """Return the range of a channel without hot pixels, or that of the training if the channel is uniform."""
    low, high = (round(float(limit), 3) for limit in np.percentile(plane, (0.5, 99.8)))
    return (low, high) if high > low else (trained_low, trained_high)
