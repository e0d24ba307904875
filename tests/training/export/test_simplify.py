"""Each graph pass changes the graph, but not its outputs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from senoscope_training.export.simplify import simplify

CHANNELS = 4


def model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x", TensorProto.FLOAT, ["N", CHANNELS, 9, 11])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(0.3, 1, shape).astype(np.float32)


NODE = helper.make_node
KERNEL = {"k": random(6, CHANNELS, 3, 3)}
PER_CHANNEL = {"s": random(1, 6, 1, 1), "b": random(1, 6, 1, 1)}
CASES = {
    "mul and add after a convolution": (
        [NODE("Conv", ["x", "k"], ["a"]), NODE("Mul", ["a", "s"], ["c"]), NODE("Add", ["b", "c"], ["y"])],
        KERNEL | PER_CHANNEL,
        {"Conv": 1},
    ),
    "add after a convolution with bias": (
        [NODE("Conv", ["x", "k", "t"], ["a"]), NODE("Add", ["a", "b"], ["y"])],
        KERNEL | PER_CHANNEL | {"t": random(6)},
        {"Conv": 1},
    ),
    "depthwise": (
        [
            NODE("Conv", ["x", "k"], ["a"], group=CHANNELS),
            NODE("Mul", ["a", "s"], ["c"]),
            NODE("Add", ["c", "b"], ["y"]),
        ],
        {"k": random(CHANNELS, 1, 3, 3), "s": random(1, CHANNELS, 1, 1), "b": random(CHANNELS, 1, 1)},
        {"Conv": 1},
    ),
    "a convolution with another consumer": (
        [NODE("Conv", ["x", "k"], ["a"]), NODE("Mul", ["a", "s"], ["c"]), NODE("Add", ["a", "c"], ["y"])],
        KERNEL | PER_CHANNEL,
        {"Conv": 1, "Mul": 1, "Add": 1},
    ),
    "mul and add not after a convolution": (
        [NODE("Relu", ["x"], ["a"]), NODE("Mul", ["a", "s"], ["c"]), NODE("Add", ["c", "b"], ["y"])],
        {"s": random(1, CHANNELS, 1, 1), "b": random(1, CHANNELS, 1, 1)},
        {"Relu": 1, "BatchNormalization": 1},
    ),
    "padding before a convolution": (
        [NODE("Pad", ["x", "p"], ["a"]), NODE("Conv", ["a", "k"], ["y"], strides=[2, 2])],
        KERNEL | {"p": np.array([0, 0, 0, 1, 0, 0, 1, 2], np.int64)},
        {"Conv": 1},
    ),
    "padding with ones": (
        [NODE("Pad", ["x", "p", "one"], ["a"]), NODE("Conv", ["a", "k"], ["y"])],
        KERNEL | {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "one": np.array(1, np.float32)},
        {"Pad": 1, "Conv": 1},
    ),
    "padding of channels": (
        [NODE("Pad", ["x", "p"], ["a"]), NODE("Conv", ["a", "k"], ["y"])],
        {"k": random(6, CHANNELS + 1, 3, 3), "p": np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int64)},
        {"Pad": 1, "Conv": 1},
    ),
    "padding before a max pooling of positive values": (
        [
            NODE("Relu", ["x"], ["r"]),
            NODE("Pad", ["r", "p"], ["a"]),
            NODE("MaxPool", ["a"], ["y"], kernel_shape=[3, 3]),
        ],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)},
        {"Relu": 1, "MaxPool": 1},
    ),
    "padding before a max pooling of values that may be negative": (
        [NODE("Pad", ["x", "p"], ["a"]), NODE("MaxPool", ["a"], ["y"], kernel_shape=[3, 3])],
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)},
        {"Pad": 1, "MaxPool": 1},
    ),
    "squeeze": (
        [
            NODE("ReduceMean", ["x"], ["a"], axes=[2, 3], keepdims=0),
            NODE("Reshape", ["a", "p"], ["c"]),
            NODE("Sigmoid", ["c"], ["d"]),
            NODE("Reshape", ["d", "p"], ["e"]),
            NODE("Mul", ["x", "e"], ["y"]),
        ],
        {"p": np.array([-1, CHANNELS, 1, 1], np.int64)},
        {"ReduceMean": 1, "Sigmoid": 1, "Mul": 1},
    ),
}


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


@pytest.mark.parametrize("name", CASES)
def test_fewer_nodes_give_the_same_outputs(name):
    nodes, constants, expected = CASES[name]
    proto = model(nodes, constants)
    x = np.random.default_rng(0).normal(-0.5, 1, (2, CHANNELS, 9, 11)).astype(np.float32)
    before = run(proto, x)
    simplify(proto)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    assert Counter(node.op_type for node in proto.graph.node) == expected
    np.testing.assert_allclose(run(proto, x), before, rtol=1e-5, atol=1e-5)
    used = {entry for node in proto.graph.node for entry in node.input}
    assert {t.name for t in proto.graph.initializer} <= used
