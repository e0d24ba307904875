"""The largest activation of a backbone, which must be within the range of fp16."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from senoscope_training.export.parity import run_network
from senoscope_training.export.simplify import Graph
from senoscope_training.variants.half import copy_of
from senoscope_training.variants.span import find_span

Float32 = npt.NDArray[np.float32]
_PEAK = "peak"


def largest_activation(
    model: onnx.ModelProto, fovs: Iterable[npt.NDArray[Any]], low: Float32, high: Float32, threads: int
) -> float:
    """Return the largest absolute value of all tensors of the backbone for fields of view [C, H, W]."""
    graph = Graph(copy_of(model))
    node, sizes = helper.make_node, []
    for name in [output for node in find_span(graph).nodes for output in node.output]:
        top, bottom, size = (f"{name}/{part}" for part in ("top", "bottom", "size"))
        graph.nodes += [
            node("ReduceMax", [name], [top], name=top, keepdims=0),
            node("ReduceMin", [name], [bottom], name=bottom, keepdims=0),
            node("Neg", [bottom], [f"{bottom}/opposite"], name=f"{bottom}/opposite"),
            node("Max", [top, f"{bottom}/opposite"], [size], name=size),
        ]
        sizes.append(size)
    graph.values["scalar_as_vector"] = onnx.numpy_helper.from_array(
        np.array([1], np.int64), "scalar_as_vector"
    )
    graph.nodes += [
        node("Max", sizes, [f"{_PEAK}/scalar"], name=f"{_PEAK}/scalar"),
        node("Reshape", [f"{_PEAK}/scalar", "scalar_as_vector"], [_PEAK], name=_PEAK),
    ]
    extended = graph.finish()
    extended.graph.output.append(helper.make_tensor_value_info(_PEAK, TensorProto.FLOAT, [1]))
    (peaks,) = run_network(extended.SerializeToString(), [_PEAK], fovs, low, high, threads)
    return float(peaks.max())
