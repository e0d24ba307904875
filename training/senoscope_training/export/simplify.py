"""Graph passes for an exported backbone that let ONNX Runtime keep its blocked layout in the whole graph.

tf2onnx exports batch norms of depthwise convolutions as Mul and Add, padding as separate nodes, and
squeeze-and-excite blocks as ReduceMean and Reshape. For each of these, ONNX Runtime converts from the blocked
(NCHWc) layout of its CPU convolutions and back, which takes longer than the operation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[np.float32]
_EPSILON = 1e-5


class Graph:
    """A flat ONNX graph, with the producer and the consumers of each tensor."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.values: dict[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
        self.outputs = {value.name for value in model.graph.output}
        self._fresh = 0
        self.index()

    def index(self) -> None:
        """Update the producers and consumers."""
        self.producers = {output: node for node in self.nodes for output in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """Return the value of a constant; None if there is no constant of that name."""
        tensor = self.values.get(name)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))

    def add_constant(self, array: npt.NDArray[np.generic], hint: str) -> str:
        """Store a constant under a new name."""
        self._fresh += 1
        name = f"{hint}__{self._fresh}"
        self.values[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def only_consumer(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the only consumer of a node's output; None if there are others."""
        output = node.output[0]
        consumers = self.consumers.get(output, [])
        return consumers[0] if len(consumers) == 1 and output not in self.outputs else None

    def merge(self, kept: onnx.NodeProto, removed: onnx.NodeProto) -> None:
        """Remove the only consumer of ``kept``, and let ``kept`` produce its output."""
        kept.output[0] = removed.output[0]
        self.nodes.remove(removed)
        self.index()

    def bypass(self, removed: onnx.NodeProto, source: str) -> None:
        """Remove a node, and replace its output by ``source``."""
        for node in self.nodes:
            for k, name in enumerate(node.input):
                if name == removed.output[0]:
                    node.input[k] = source
        self.nodes.remove(removed)
        self.index()

    def finish(self) -> onnx.ModelProto:
        """Return the model with the constants that are used."""
        used = {name for node in self.nodes for name in node.input}
        graph = self.model.graph
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(tensor for name, tensor in self.values.items() if name in used)
        return self.model


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of an attribute."""
    values = (helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name)
    return next(values, default)


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Set or replace an attribute."""
    others = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend([*others, helper.make_attribute(name, value)])


def _per_channel(array: npt.NDArray[Any] | None, channels: int) -> Array | None:
    """Return a constant that broadcasts over [N, C, H, W] as a vector [C]; None if it varies along others."""
    if array is None or array.dtype != np.float32:
        return None
    if array.size == 1:
        return np.full(channels, array.ravel()[0], np.float32)
    shape = (1,) * (4 - array.ndim) + array.shape
    return array.astype(np.float32).ravel() if shape == (1, channels, 1, 1) else None


def _affine(graph: Graph, node: onnx.NodeProto, source: str, channels: int) -> tuple[Array, Array] | None:
    """Return scale and shift [C] of a Mul or Add with the input ``source``."""
    if node.op_type not in {"Mul", "Add"}:
        return None
    other = node.input[1] if node.input[0] == source else node.input[0]
    vector = _per_channel(graph.constant(other), channels)
    if vector is None:
        return None
    if node.op_type == "Mul":
        return vector, np.zeros(channels, np.float32)
    return np.ones(channels, np.float32), vector


def fold_into_convolution(graph: Graph, conv: onnx.NodeProto) -> bool:
    """Fold a per-channel Mul or Add into the convolution before it."""
    follower = graph.only_consumer(conv)
    weight = graph.constant(conv.input[1])
    if follower is None or weight is None:
        return False
    affine = _affine(graph, follower, conv.output[0], weight.shape[0])
    bias = graph.constant(conv.input[2]) if len(conv.input) > 2 else np.zeros(weight.shape[0], np.float32)
    if affine is None or bias is None:
        return False
    scale, shift = (part.astype(np.float64) for part in affine)
    folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    names = [
        graph.add_constant(folded.astype(np.float32), "kernel"),
        graph.add_constant((bias * scale + shift).astype(np.float32), "bias"),
    ]
    del conv.input[1:]
    conv.input.extend(names)
    graph.merge(conv, follower)
    return True


def join_affine(graph: Graph, mul: onnx.NodeProto) -> bool:
    """Replace a per-channel Mul and Add that do not follow a convolution by one BatchNormalization.

    ONNX Runtime fuses it with the following activation and keeps the blocked layout, which it does not do
    with Mul and Add.
    """
    add = graph.only_consumer(mul)
    if add is None or add.op_type != "Add":
        return False
    constants = [graph.constant(name) for name in (*mul.input, *add.input)]
    sizes = {c.size for c in constants if c is not None and c.ndim >= 3}
    source = next((name for name in mul.input if graph.constant(name) is None), None)
    if len(sizes) != 1 or source is None:
        return False
    channels = sizes.pop()
    first = _affine(graph, mul, source, channels)
    second = _affine(graph, add, mul.output[0], channels)
    if first is None or second is None:
        return False
    parts = {
        "scale": first[0],
        "shift": second[1],
        "mean": np.zeros(channels, np.float32),
        # Some releases of cuDNN refuse an epsilon of zero; variance + epsilon is one.
        "variance": np.full(channels, 1 - _EPSILON, np.float32),
    }
    names = [graph.add_constant(array, hint) for hint, array in parts.items()]
    node = helper.make_node("BatchNormalization", [source, *names], [add.output[0]], epsilon=_EPSILON)
    graph.nodes[graph.nodes.index(mul)] = node
    graph.nodes.remove(add)
    graph.index()
    return True


def absorb_padding(graph: Graph, pad: onnx.NodeProto) -> bool:
    """Fold zero padding into the following convolution or max pooling."""
    widths = graph.constant(pad.input[1])
    fill = graph.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.float32(0)
    if attribute(pad, "mode", b"constant") != b"constant" or pad.output[0] in graph.outputs:
        return False
    if widths is None or fill is None or np.any(fill != 0):
        return False
    if widths.size != 8 or widths[[0, 1, 4, 5]].any() or (widths < 0).any():
        return False
    consumers = graph.consumers.get(pad.output[0], [])
    kinds = {node.op_type for node in consumers}
    producer = graph.producers.get(pad.input[0])
    # Max pooling pads with minus infinity, which is equivalent to zero only if no input is negative.
    after_relu = producer is not None and producer.op_type == "Relu"
    if kinds - {"Conv", "MaxPool"} or ("MaxPool" in kinds and not after_relu):
        return False
    if any(attribute(node, "auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"} for node in consumers):
        return False
    for node in consumers:
        own = np.array(attribute(node, "pads", [0, 0, 0, 0]))
        set_attribute(node, "pads", [int(width) for width in own + widths[[2, 3, 6, 7]]])
        set_attribute(node, "auto_pad", "NOTSET")
    graph.bypass(pad, pad.input[0])
    return True


def _averages_plane(node: onnx.NodeProto, *, keepdims: bool) -> bool:
    return (
        node.op_type == "ReduceMean"
        and sorted(attribute(node, "axes", [])) == [2, 3]
        and attribute(node, "keepdims", 1) == keepdims
    )


def _restores_plane(graph: Graph, node: onnx.NodeProto) -> bool:
    """Return whether a node reshapes to [-1, C, 1, 1]."""
    shape = graph.constant(node.input[1]) if node.op_type == "Reshape" else None
    return shape is not None and shape.size == 4 and shape[0] == -1 and bool((shape[2:] == 1).all())


def keep_dimensions(graph: Graph, mean: onnx.NodeProto) -> bool:
    """Set keepdims of a ReduceMean over rows and columns, instead of a Reshape that restores them.

    GlobalAveragePool would be equivalent, but ONNX Runtime sums its tens of thousands of pixels one by one,
    which triples the deviation from Keras for the whole EfficientNet, and is not faster.
    """
    follower = graph.only_consumer(mean)
    if not _averages_plane(mean, keepdims=False) or follower is None or not _restores_plane(graph, follower):
        return False
    set_attribute(mean, "keepdims", 1)
    graph.merge(mean, follower)
    return True


def drop_idle_reshapes(graph: Graph, reshape: onnx.NodeProto) -> bool:
    """Remove a Reshape of a mean over rows and columns, [N, C, 1, 1], to the same shape."""
    producer = graph.producers.get(reshape.input[0])
    while producer is not None and producer.op_type in {"Conv", "Mul", "Sigmoid", "Relu", "Add"}:
        producer = graph.producers.get(producer.input[0])
    if producer is None or not _averages_plane(producer, keepdims=True) or reshape.output[0] in graph.outputs:
        return False
    # The number of channels cannot differ, because N is the only other free dimension, and is -1 here.
    if not _restores_plane(graph, reshape):
        return False
    graph.bypass(reshape, reshape.input[0])
    return True


def drop_reshape_of_input(graph: Graph, reshape: onnx.NodeProto) -> bool:
    """Remove the Reshape of an image of one channel to its own shape, which tf2onnx makes of a Transpose."""
    source = graph.model.graph.input[0]
    shape = graph.constant(reshape.input[1])
    own = [dimension.dim_value for dimension in source.type.tensor_type.shape.dim]
    if reshape.input[0] != source.name or shape is None or shape.tolist()[1:] != own[1:]:
        return False
    graph.bypass(reshape, source.name)
    return True


# A pass changes the graph at one node and returns True, or changes nothing.
_PASSES = (
    ("Pad", absorb_padding),
    ("ReduceMean", keep_dimensions),
    ("Reshape", drop_idle_reshapes),
    ("Reshape", drop_reshape_of_input),
    ("Conv", fold_into_convolution),
    ("Mul", join_affine),
)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply each pass until it changes nothing; the model is changed in place."""
    graph = Graph(model)
    for kind, simplification in _PASSES:
        while any(simplification(graph, node) for node in graph.nodes if node.op_type == kind):
            pass
    return graph.finish()
