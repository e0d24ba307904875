"""Graph passes for an exported backbone that let ONNX Runtime keep its blocked layout in the whole graph.

tf2onnx exports batch norms of depthwise convolutions as Mul and Add, padding as separate nodes, and
squeeze-and-excite blocks as ReduceMean and Reshape. For each of these, ONNX Runtime converts from the blocked
(NCHWc) layout of its CPU convolutions and back, which takes longer than the operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[np.float32]
_EPSILON = 1e-5


class Graph:
    """A flat ONNX graph, with the producer and the consumers of each tensor.

    A pass that does not match does not change the graph, and raises no error.
    """

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
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Set or replace an attribute."""
    for k, entry in enumerate(node.attribute):
        if entry.name == name:
            del node.attribute[k]
            break
    node.attribute.append(helper.make_attribute(name, value))


def _per_channel(array: npt.NDArray[Any] | None, channels: int) -> Array | None:
    """Return a constant that broadcasts over [N, C, H, W] as a vector [C]; None if it varies along others."""
    if array is None or array.dtype != np.float32:
        return None
    if array.size == 1:
        return np.full(channels, array.ravel()[0], np.float32)
    shape = (1,) * (4 - array.ndim) + array.shape
    return array.astype(np.float32).ravel() if shape == (1, channels, 1, 1) else None


def _other_operand(node: onnx.NodeProto, name: str) -> str:
    return str(node.input[1] if node.input[0] == name else node.input[0])


def _affine(graph: Graph, node: onnx.NodeProto, source: str, channels: int) -> tuple[Array, Array] | None:
    """Return scale and shift [C] of a Mul, Add, Sub or BatchNormalization with the input ``source``."""
    one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    if node.op_type in {"Mul", "Add"}:
        vector = _per_channel(graph.constant(_other_operand(node, source)), channels)
        if vector is None:
            return None
        return (vector, zero) if node.op_type == "Mul" else (one, vector)
    if node.op_type == "Sub" and node.input[0] == source:
        vector = _per_channel(graph.constant(node.input[1]), channels)
        return None if vector is None else (one, -vector)
    if node.op_type == "BatchNormalization":
        parts = [graph.constant(name) for name in node.input[1:]]
        if any(part is None for part in parts):
            return None
        gamma, beta, mean, variance = (np.asarray(part, np.float64) for part in parts)
        scale = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
        return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)
    return None


def fold_into_convolution(graph: Graph) -> bool:
    """Fold per-channel Mul, Add, Sub and BatchNormalization into the convolution before them."""
    for conv in graph.nodes:
        if conv.op_type != "Conv":
            continue
        follower = graph.only_consumer(conv)
        if follower is None or conv.input[1] not in graph.values:
            continue
        affine = _affine(graph, follower, conv.output[0], graph.values[conv.input[1]].dims[0])
        weight = None if affine is None else graph.constant(conv.input[1])
        if affine is None or weight is None:
            continue
        scale, shift = (part.astype(np.float64) for part in affine)
        bias = graph.constant(conv.input[2]) if len(conv.input) > 2 else np.zeros(weight.shape[0], np.float32)
        if bias is None:
            continue
        folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        names = [
            graph.add_constant(folded.astype(np.float32), "kernel"),
            graph.add_constant((bias * scale + shift).astype(np.float32), "bias"),
        ]
        del conv.input[1:]
        conv.input.extend(names)
        graph.merge(conv, follower)
        return True
    return False


def join_affine(graph: Graph) -> bool:
    """Replace a per-channel Mul and Add that do not follow a convolution by one BatchNormalization.

    ONNX Runtime fuses it with the following activation and keeps the blocked layout, which it does not do
    with Mul and Add.
    """
    for mul in graph.nodes:
        if mul.op_type != "Mul":
            continue
        add = graph.only_consumer(mul)
        if add is None or add.op_type != "Add":
            continue
        constants = [graph.constant(name) for name in (*mul.input, *add.input)]
        sizes = {c.size for c in constants if c is not None and c.ndim >= 3}
        source = next((name for name in mul.input if graph.constant(name) is None), None)
        if len(sizes) != 1 or source is None:
            continue
        channels = sizes.pop()
        first = _affine(graph, mul, source, channels)
        second = _affine(graph, add, mul.output[0], channels)
        if first is None or second is None:
            continue
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
    return False


def absorb_padding(graph: Graph) -> bool:
    """Fold zero padding into the following convolution or max pooling."""
    for pad in graph.nodes:
        if pad.op_type != "Pad" or attribute(pad, "mode", b"constant") != b"constant":
            continue
        widths = graph.constant(pad.input[1])
        fill = graph.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.float32(0)
        consumers = graph.consumers.get(pad.output[0], [])
        if widths is None or fill is None or np.any(fill != 0) or pad.output[0] in graph.outputs:
            continue
        widths = widths.astype(int)
        if widths.size != 8 or widths[[0, 1, 4, 5]].any() or (widths < 0).any():
            continue
        kinds = {node.op_type for node in consumers}
        producer = graph.producers.get(pad.input[0])
        # Max pooling pads with minus infinity, which is equivalent to zero only if no input is negative.
        after_relu = producer is not None and producer.op_type == "Relu"
        if kinds - {"Conv", "MaxPool"} or ("MaxPool" in kinds and not after_relu):
            continue
        if any(attribute(node, "auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"} for node in consumers):
            continue
        added = widths[[2, 3, 6, 7]]
        for node in consumers:
            own = np.array(attribute(node, "pads", [0, 0, 0, 0]))
            set_attribute(node, "pads", [int(width) for width in own + added])
            set_attribute(node, "auto_pad", "NOTSET")
        graph.bypass(pad, pad.input[0])
        return True
    return False


def keep_dimensions(graph: Graph) -> bool:
    """Set keepdims of a ReduceMean over rows and columns, instead of a Reshape that restores them.

    GlobalAveragePool would be equivalent, but ONNX Runtime sums its tens of thousands of pixels one by one,
    which triples the deviation from Keras for the whole EfficientNet, and is not faster.
    """
    for mean in graph.nodes:
        if mean.op_type != "ReduceMean" or sorted(attribute(mean, "axes", [])) != [2, 3]:
            continue
        follower = graph.only_consumer(mean)
        if attribute(mean, "keepdims", 1) == 1 or follower is None or follower.op_type != "Reshape":
            continue
        shape = graph.constant(follower.input[1])
        if shape is None or shape.size != 4 or shape[0] != -1 or (shape[2:] != 1).any():
            continue
        set_attribute(mean, "keepdims", 1)
        graph.merge(mean, follower)
        return True
    return False


def drop_idle_reshapes(graph: Graph) -> bool:
    """Remove Reshapes of a mean over rows and columns, [N, C, 1, 1], to the same shape."""
    for reshape in graph.nodes:
        if reshape.op_type != "Reshape":
            continue
        shape = graph.constant(reshape.input[1])
        producer = graph.producers.get(reshape.input[0])
        while producer is not None and producer.op_type in {"Conv", "Mul", "Sigmoid", "Relu", "Add"}:
            producer = graph.producers.get(producer.input[0])
        if producer is None or producer.op_type != "ReduceMean" or reshape.output[0] in graph.outputs:
            continue
        if sorted(attribute(producer, "axes", [])) != [2, 3] or attribute(producer, "keepdims", 1) != 1:
            continue
        # The number of channels cannot differ, because N is the only other free dimension, and is -1 here.
        if shape is None or shape.size != 4 or shape[0] != -1 or (shape[2:] != 1).any():
            continue
        graph.bypass(reshape, reshape.input[0])
        return True
    return False


def drop_identities(graph: Graph) -> bool:
    """Remove Identity nodes."""
    for node in graph.nodes:
        if node.op_type == "Identity" and node.output[0] not in graph.outputs:
            graph.bypass(node, node.input[0])
            return True
    return False


PASSES: tuple[Callable[[Graph], bool], ...] = (
    drop_identities,
    absorb_padding,
    keep_dimensions,
    drop_idle_reshapes,
    fold_into_convolution,
    join_affine,
)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Apply each pass until it changes nothing; the model is changed in place."""
    graph = Graph(model)
    for simplification in PASSES:
        while simplification(graph):
            pass
    return graph.finish()


def histogram(model: onnx.ModelProto) -> dict[str, int]:
    """Count the nodes of each type in the graph."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())
