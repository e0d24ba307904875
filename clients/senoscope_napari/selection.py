"""Conversion of the selected layers to a stack of fields of view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Layer

from senoscope_napari.fov_layers import Placement
from senoscope_napari.link import PostedStack


class UnsuitableSelection(Exception):
    """The selected layers are not a stack of fields of view; the message describes suitable layers."""


@dataclass(frozen=True)
class SelectedStack:
    """A stack to post, and the placement of its pixels.

    Attributes
    ----------
    title : str
        Names of its layers.
    layer : Image or None
        The layer whose first axis is the field of view; None if there is only one field of view.
    """

    stack: PostedStack
    placement: Placement
    shape: tuple[int, int]
    title: str
    layer: Image | None = None


def stack_of(layers: Sequence[Layer], channels: Sequence[str]) -> SelectedStack:
    """Return the stack of the selected layers: one layer [C, H, W] or [N, C, H, W], or C layers [H, W].

    Parameters
    ----------
    layers : sequence of Layer
        In the order of the layer list, lowest first.
    channels : sequence of str
        Of the ensemble.

    Raises
    ------
    UnsuitableSelection
        If they are other layers.
    """
    count = len(channels)
    wanted = (
        f"choose one image layer with the axes channel, row, column ({count} channels), or field of view, "
        f"channel, row, column; or {count} layers of one channel each, in the order {', '.join(channels)} "
        "from the bottom up"
    )
    if not layers or not all(isinstance(layer, Image) and not layer.rgb for layer in layers):
        raise UnsuitableSelection(f"Nothing to classify: {wanted}.")
    arrays = [layer.data[0] if layer.multiscale else layer.data for layer in layers]
    shapes = [tuple(array.shape) for array in arrays]
    placement, size = Placement.of_layer(layers[0]), shapes[0][-2:]
    if len(layers) == 1 and len(shapes[0]) in {3, 4}:
        many = len(shapes[0]) == 4
        matches = shapes[0][-3] == count  # else the service infers the axes
        return SelectedStack(
            PostedStack(lambda: np.asarray(arrays[0]), ("PCYX" if many else "CYX") if matches else None),
            placement,
            size,
            f"“{layers[0].name}”",
            layers[0] if many else None,
        )
    if len(layers) == count and all(len(shape) == 2 and shape == shapes[0] for shape in shapes):

        def stacked() -> npt.NDArray[Any]:
            return np.stack([np.asarray(array) for array in arrays])

        title = ", ".join(f"“{one.name}”" for one in layers)
        return SelectedStack(PostedStack(stacked, "CYX"), placement, size, title)
    names = ", ".join(f"“{one.name}” {shape}" for one, shape in zip(layers, shapes, strict=True))
    raise UnsuitableSelection(f"{names} cannot be classified: {wanted}.")
