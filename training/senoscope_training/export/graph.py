"""The graph of an exported network: intensity scaling, backbone, head and Grad-CAM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from senoscope_training.export.convert import IR_VERSION, OPSET, SINK, SOURCE
from senoscope_training.export.simplify import Graph, attribute
from senoscope_training.networks.architectures import Preprocessing
from senoscope_training.networks.head import B1, B2, W1, W2, Float32, Head

_TOP = 255.0


def assemble(
    backbone: onnx.ModelProto, preprocessing: Preprocessing, head: Head, name: str
) -> onnx.ModelProto:
    """Add scaling and preprocessing before a converted backbone, and head and Grad-CAM after it.

    The result has any batch size. ``backbone`` is changed.
    """
    graph = Graph(backbone)
    channels, height, width = shape_of(backbone.graph.input[0])
    size, rows, columns = shape_of(backbone.graph.output[0])
    offset = _fold_preprocessing(graph, preprocessing)
    constants: dict[str, npt.NDArray[np.generic]] = {
        "column": np.array([1, -1, 1, 1], np.int64),
        "top": np.array(_TOP, np.float32),
        "zero": np.array(0, np.float32),
        "pooled_shape": np.array([-1, size], np.int64),
        "cells_shape": np.array([-1, size, rows * columns], np.int64),
        "weights_shape": np.array([-1, 1, size], np.int64),
        "map_shape": np.array([-1, rows, columns], np.int64),
        "vector": np.array([-1], np.int64),
        **head.tensors(),
    }
    node = helper.make_node
    # The same operations in the same order as NumPy's clip((x - low) / (high - low) * 255, 0, 255): after
    # truncation to integers, a rounding error in the last digit would be a difference of one grey value.
    front = [
        node("Reshape", ["low", "column"], ["low4"]),
        node("Reshape", ["high", "column"], ["high4"]),
        node("Sub", ["image", "low4"], ["above"]),
        node("Sub", ["high4", "low4"], ["span"]),
        node("Div", ["above", "span"], ["unit"]),
        node("Mul", ["unit", "top"], ["scaled"]),
        node("Clip", ["scaled", "zero", "top"], ["clipped"]),
        node("Floor", ["clipped"], [SOURCE if offset is None else "counts"]),
    ]
    if offset is not None:
        constants["offset"] = offset.reshape(1, -1, 1, 1)
        front.append(node("Add", ["counts", "offset"], [SOURCE]))
    # Grad-CAM in closed form: the gradient of the logit with respect to the pooled features is
    # g = W1 (1[z > 0] * w2), and each cell of the map is relu(sum_c g_c A_c / cells).
    back = [
        node("GlobalMaxPool", [SINK], ["pooled"]),
        node("Reshape", ["pooled", "pooled_shape"], ["features"]),
        node("Gemm", ["features", W1, B1], ["z"]),
        node("Relu", ["z"], ["hidden"]),
        node("Gemm", ["hidden", W2, B2], ["logit2"], transB=1),
        node("Reshape", ["logit2", "vector"], ["logit"]),
        node("Sigmoid", ["logit"], ["probability"]),
        node("Greater", ["z", "zero"], ["on"]),
        node("Where", ["on", W2, "zero"], ["through"]),
        node("Gemm", ["through", W1], ["weights"], transB=1, alpha=1.0 / (rows * columns)),
        node("Reshape", ["weights", "weights_shape"], ["weights3"]),
        node("Reshape", [SINK, "cells_shape"], ["cells"]),
        node("MatMul", ["weights3", "cells"], ["summed"]),
        node("Relu", ["summed"], ["positive"]),
        node("Reshape", ["positive", "map_shape"], ["gradcam"]),
    ]
    value = helper.make_tensor_value_info
    body = graph.finish().graph
    initializers = [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in constants.items()]
    assembled = helper.make_graph(
        [*front, *body.node, *back],
        name,
        [
            value("image", TensorProto.FLOAT, ["N", channels, height, width]),
            value("low", TensorProto.FLOAT, [channels]),
            value("high", TensorProto.FLOAT, [channels]),
        ],
        [
            value("logit", TensorProto.FLOAT, ["N"]),
            value("probability", TensorProto.FLOAT, ["N"]),
            value("gradcam", TensorProto.FLOAT, ["N", rows, columns]),
            value("features", TensorProto.FLOAT, ["N", size]),
        ],
        [*initializers, *body.initializer],
    )
    for k, entry in enumerate(assembled.node):
        entry.name = f"{entry.op_type}_{k}"
    model = helper.make_model(
        assembled,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="senoscope",
    )
    onnx.checker.check_model(model)
    return model


def shape_of(value: onnx.ValueInfoProto) -> list[int]:
    """Return the shape of one example of a graph's input or output."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim[1:]]


def _fold_preprocessing(graph: Graph, preprocessing: Preprocessing) -> Float32 | None:
    """Fold channel order and scale into the first convolution, and the offset too if it has no padding.

    Return the offset [C] that must be added to the image of 0..255, or None. With zero padding the offset
    cannot be folded, because the padding is zero after preprocessing.
    """
    (first,) = graph.consumers[SOURCE]
    kernel = graph.constant(first.input[1])
    if first.op_type != "Conv" or kernel is None:
        raise ValueError(f"the first node of the backbone is {first.op_type}, expected Conv")
    kernel = kernel.astype(np.float64)
    inverse = np.argsort(preprocessing.order)
    shift = kernel.sum(axis=(2, 3)) @ preprocessing.offset
    folded = (kernel * preprocessing.scale.reshape(1, -1, 1, 1))[:, inverse]
    names = [graph.add_constant(folded.astype(np.float32), "first_kernel"), *first.input[2:]]
    remaining: Float32 | None = (preprocessing.offset / preprocessing.scale)[inverse].astype(np.float32)
    if not any(attribute(first, "pads", [0])):
        bias = graph.constant(first.input[2]) if len(first.input) > 2 else np.float32(0)
        names = [names[0], graph.add_constant((bias + shift).astype(np.float32), "first_bias")]
        remaining = None
    del first.input[1:]
    first.input.extend(names)
    return remaining


def replace_head(model: onnx.ModelProto, head: Head) -> None:
    """Replace the head of an exported network in place; raise ValueError if its shape differs."""
    tensors = head.tensors()
    found = {t.name: t for t in model.graph.initializer if t.name in tensors}
    for name, array in tensors.items():
        if name not in found:
            raise ValueError(f"the graph has no initializer {name}")
        if tuple(found[name].dims) != array.shape:
            raise ValueError(
                f"{name} has shape {tuple(found[name].dims)} in the graph, but {array.shape} in the head"
            )
        found[name].CopyFrom(numpy_helper.from_array(array, name))


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a network to one file."""
    path.write_bytes(model.SerializeToString(deterministic=True))
