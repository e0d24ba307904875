"""Conversion of a network's backbone to fp16, and an fp32 graph that rounds in the same places.

Intensity scaling stays in fp32, because its truncation to whole grey values needs all digits; head and
Grad-CAM do too, because they take almost no time and amplify rounding. Inputs and outputs of the graph do not
change.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from senoscope_training.export.simplify import Graph, attribute
from senoscope_training.variants.errors import VariantError
from senoscope_training.variants.span import find_span

Float32 = npt.NDArray[np.float32]
HALF_MAX = float(np.finfo(np.float16).max)
_SUFFIX = "/fp16"
# Operations whose outputs have the type of their inputs, without attributes that hold numbers of a type.
_CONVERTED = frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "Div", "GlobalAveragePool"}
    | {"HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mul", "Pad", "PRelu", "ReduceMean"}
    | {"Relu", "Reshape", "Sigmoid", "Sub", "Tanh", "Transpose"}
)
# Those that only select or move values, so that rounded inputs give rounded outputs.
_EXACT = frozenset({"Clip", "Concat", "Identity", "MaxPool", "Pad", "Relu", "Reshape", "Transpose"})
# x * _SPLITTER - (x * _SPLITTER - x) is x rounded to 11 bits, in fp32 arithmetic (Veltkamp 1968).
_SPLITTER = np.float32(2**13 + 1)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model, because `Graph` changes its model."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def convert_to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a network with its backbone in fp16.

    All floating-point inputs of an operation become fp16, also mean and variance of a batch normalization:
    not every provider runs it with mixed types.

    Raises
    ------
    VariantError
        If the backbone has an operation that is not known to run in fp16, or a constant beyond its range.
    """
    graph = Graph(copy_of(model))
    span = find_span(graph)
    unknown = sorted({node.op_type for node in span.nodes} - _CONVERTED)
    if unknown:
        raise VariantError(f"its backbone has operations without a known fp16 form: {', '.join(unknown)}")
    halves: dict[str, str] = {}
    casts: dict[str, onnx.NodeProto] = {}  # of tensors that leave the span
    for node in span.nodes:
        for k, name in enumerate(node.input):
            constant = graph.constant(name)
            if constant is not None and constant.dtype == np.float32:
                node.input[k] = halves.setdefault(name, name + _SUFFIX)
                _add_half(graph, halves[name], constant)
            elif name in span.entering or name in span.leaving:
                node.input[k] = name + _SUFFIX
        for k, name in enumerate(node.output):
            if name in span.leaving:
                node.output[k] = name + _SUFFIX
                casts[node.output[k]] = _cast(node.output[k], name, TensorProto.FLOAT)
    _insert_casts(graph, [_cast(name, name + _SUFFIX, TensorProto.FLOAT16) for name in span.entering], casts)
    return graph.finish()


def _add_half(graph: Graph, name: str, constant: Float32) -> None:
    if name in graph.values:
        return
    largest = float(np.abs(constant).max(initial=0))
    if not largest <= HALF_MAX:
        raise VariantError(
            f"its constant {name.removesuffix(_SUFFIX)} has a value of {largest:.3g}, beyond fp16"
        )
    graph.values[name] = onnx.numpy_helper.from_array(constant.astype(np.float16), name)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"Cast_{target}", to=kind)


def _insert_casts(graph: Graph, entering: list[onnx.NodeProto], leaving: dict[str, onnx.NodeProto]) -> None:
    """Insert casts directly after the nodes that produce their inputs."""
    after = {cast.input[0]: cast for cast in entering} | leaving
    produced = {output for node in graph.nodes for output in node.output}
    nodes = [cast for cast in entering if cast.input[0] not in produced]  # inputs of the graph itself
    for node in graph.nodes:
        nodes.append(node)
        nodes += [after[output] for output in node.output if output in after]
    graph.nodes = nodes
    graph.index()


def simulate_half(half: onnx.ModelProto) -> onnx.ModelProto:
    """Return an fp32 graph that rounds constants and intermediate values as a GPU does in fp16.

    ONNX Runtime's CPU provider runs fp16 graphs in fp32 and rounds only their constants, so that a comparison
    there would hide most of the deviation. Overflow is not simulated.
    """
    graph = Graph(copy_of(half))
    graph.values["splitter"] = onnx.numpy_helper.from_array(_SPLITTER, "splitter")
    for name, tensor in graph.values.items():
        if tensor.data_type == TensorProto.FLOAT16:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            graph.values[name] = onnx.numpy_helper.from_array(array, name)
    nodes: list[onnx.NodeProto] = []
    low: set[str] = set()  # tensors of fp16
    exact: set[str] = set()  # those of them that need no rounding, or not yet
    for node in graph.nodes:
        source, output = node.input[0], node.output[0]
        if node.op_type == "Cast" and attribute(node, "to") == TensorProto.FLOAT16:
            nodes += _rounding(source, output)
            low.add(output)
        elif node.op_type == "Cast" and source in low:
            nodes.append(helper.make_node("Identity", [source], [output], name=node.name))
        elif any(name in low for name in node.input):
            low.add(output)
            rounded = node.op_type in _EXACT and not any(name in exact for name in node.input)
            follower = graph.only_consumer(node)
            if not rounded and follower is not None and follower.op_type in {"Relu", "Clip"}:
                exact.add(output)  # rounded after it, with the same result
            elif not rounded:
                node.output[0] = f"{output}/exact"
                nodes += [node, *_rounding(node.output[0], output)]
                continue
            nodes.append(node)
        else:
            nodes.append(node)
    graph.nodes = nodes
    graph.index()
    return graph.finish()


def _rounding(source: str, target: str) -> list[onnx.NodeProto]:
    large, rest = f"{target}/large", f"{target}/rest"
    return [
        helper.make_node("Mul", [source, "splitter"], [large], name=f"Mul_{target}"),
        helper.make_node("Sub", [large, source], [rest], name=f"Sub_{target}"),
        helper.make_node("Sub", [large, rest], [target], name=f"Round_{target}"),
    ]
