"""Export of one network to ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx

from senoscope_training.export.convert import convert_backbone
from senoscope_training.export.graph import assemble, shape_of
from senoscope_training.export.simplify import simplify
from senoscope_training.networks.architectures import Preprocessing
from senoscope_training.networks.head import Head


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported network in memory, with the size of its Grad-CAM map and the number of its features."""

    model: onnx.ModelProto
    gradcam_grid: tuple[int, int]
    feature_size: int


def export_network(backbone: Any, preprocessing: Preprocessing, head: Head | None = None) -> ExportedNetwork:
    """Export a backbone, from the image of raw counts to all outputs, without a comparison with Keras.

    Parameters
    ----------
    backbone : keras.Model
        From the preprocessed image [N, H, W, C] to the last activation [N, h, w, F].
    preprocessing : Preprocessing
        From an image of 0..255 to the input of the backbone.
    head : Head, optional
        Default: a random head, to be replaced by :func:`senoscope_training.export.graph.replace_head`.
    """
    _, rows, columns, size = backbone.output.shape
    converted = simplify(convert_backbone(backbone))
    shape = shape_of(converted.graph.output[0])
    if shape != [size, rows, columns]:
        raise ValueError(
            f"{backbone.name}: the converted output has shape {shape}, expected {[size, rows, columns]}"
        )
    model = assemble(converted, preprocessing, head or Head.random(size, seed=0), backbone.name)
    return ExportedNetwork(model, (rows, columns), size)
