"""Camera movements to a layer; unlike napari's, they also work with layers of more axes."""

from __future__ import annotations

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer

_MARGIN = 1.04


def size_of(layer: Layer) -> tuple[float, ...]:
    """Return height and width of a layer in world coordinates, rounded so that they can be compared."""
    low, high = layer.extent.world
    return tuple(np.round(high - low, 3)[-2:])


def centre_on(viewer: ViewerModel, layer: Layer) -> None:
    """Move the camera to a layer without changing the zoom."""
    camera = viewer.scene.camera
    low, high = layer.extent.world
    camera.center = (*camera.center[:-2], *((low + high) / 2)[-2:])


def fit(viewer: ViewerModel, layer: Layer) -> None:
    """Move and zoom the camera so that a layer fills the view."""
    centre_on(viewer, layer)
    sizes = zip(viewer.canvas.size, size_of(layer), strict=True)
    viewer.scene.camera.zoom = min(pixels / (_MARGIN * max(length, 1e-9)) for pixels, length in sizes)
