"""What the selected layers hold that could be classified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Layer

from senoscope_napari.fov_layers import Placement
from senoscope_napari.link import Posted


class CannotPost(Exception):
    """What is selected is no stack of fields of view; the message says what would be."""


@dataclass(frozen=True)
class Selected:
    """A stack to post, and where its pixels lie.

    Attributes
    ----------
    layer : Image or None
        The one whose first axis counts fields of view; None where there is one field of view only.
    """

    posted: Posted
    placement: Placement
    shape: tuple[int, int]
    words: str
    layer: Image | None = None


def stack_of(layers: Sequence[Layer], channels: Sequence[str]) -> Selected:
    """The stack that the selected layers are: one layer [C, H, W] or [N, C, H, W], or C layers [H, W].

    Parameters
    ----------
    layers : sequence of Layer
        In the order of the layer list, lowest first.
    channels : sequence of str
        Of the ensemble.

    Raises
    ------
    CannotPost
        If they are anything else.
    """
    count = len(channels)
    wanted = (
        f"choose one image layer with the axes channel, row, column ({count} channels), or with the fields "
        f"of view before them; or {count} layers of one channel each, in the order {', '.join(channels)} "
        "from the bottom up"
    )
    if not layers or not all(isinstance(layer, Image) and not layer.rgb for layer in layers):
        raise CannotPost(f"Nothing to classify: {wanted}.")
    arrays = [layer.data[0] if layer.multiscale else layer.data for layer in layers]
    shapes = [tuple(array.shape) for array in arrays]
    placement, size = Placement.of(layers[0]), shapes[0][-2:]
    if len(layers) == 1 and len(shapes[0]) in {3, 4}:
        many = len(shapes[0]) == 4
        known = shapes[0][-3] == count  # else the service tells what it makes of it
        return Selected(
            Posted(lambda: np.asarray(arrays[0]), ("PCYX" if many else "CYX") if known else None),
            placement,
            size,
            f"“{layers[0].name}”",
            layers[0] if many else None,
        )
    if len(layers) == count and all(len(shape) == 2 and shape == shapes[0] for shape in shapes):

        def stacked() -> npt.NDArray[Any]:
            return np.stack([np.asarray(array) for array in arrays])

        return Selected(Posted(stacked, "CYX"), placement, size, ", ".join(f"“{one.name}”" for one in layers))
    told = ", ".join(f"“{one.name}” {shape}" for one, shape in zip(layers, shapes, strict=True))
    raise CannotPost(f"{told} cannot be classified: {wanted}.")
