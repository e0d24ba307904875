"""The backbone of a network, and nothing else, is converted to fp16."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from senoscope.engine.executor import OUTPUT_NAMES
from senoscope_client.simulation.synthetic import synthesize
from senoscope_training.export.parity import run_network
from senoscope_training.export.simplify import Graph
from senoscope_training.networks.head import B1, B2, W1, W2
from senoscope_training.variants.activations import largest_activation
from senoscope_training.variants.bias_correction import correct_biases
from senoscope_training.variants.errors import VariantError
from senoscope_training.variants.half import HALF_MAX, convert_to_half, simulate_half
from senoscope_training.variants.head_correction import correct_head
from senoscope_training.variants.span import find_span
from support.small_networks import GRID, HEIGHT, HIGH, LOW, WIDTH, small_network

FOVS = [synthesize(3, n, senescent=bool(n % 2), height=HEIGHT, width=WIDTH).pixels for n in range(6)]
DATA_TYPES = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}


def outputs(model: onnx.ModelProto, names=OUTPUT_NAMES, fovs=FOVS) -> list[np.ndarray]:
    return run_network(model.SerializeToString(), list(names), fovs, LOW, HIGH, 1)


def plain(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    """A graph from ``image`` to ``features``, without a head."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("image", TensorProto.FLOAT, ["N", 3, 9, 11])],
        [value("features", TensorProto.FLOAT, ["N", "F", 1, 1])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


NODE = helper.make_node
IDENTITY = {"k": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)}
POOL = NODE("GlobalMaxPool", ["y"], ["features"])


def test_the_converted_graph_is_valid_and_keeps_its_inputs_and_outputs() -> None:
    model = small_network(1)
    half = convert_to_half(model)
    onnx.checker.check_model(half, full_check=True)
    assert list(half.graph.input) == list(model.graph.input)
    assert list(half.graph.output) == list(model.graph.output)


def test_casts_are_at_the_borders_of_the_backbone_only() -> None:
    half = convert_to_half(small_network(1))
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    assert [(node.input[0], node.output[0]) for node in casts] == [
        ("preprocessed", "preprocessed/fp16"),
        ("activation/fp16", "activation"),
    ]
    names = [node.name for node in half.graph.node if node.name]
    assert len(names) == len(set(names))


def test_the_backbone_has_fp16_constants_and_the_rest_fp32() -> None:
    model = small_network(1)
    half = convert_to_half(model)
    kinds = {tensor.name: DATA_TYPES.get(tensor.data_type, "int64") for tensor in half.graph.initializer}
    for name in (W1, B1, W2, B2, "top", "zero", "offset"):
        assert kinds[name] == "fp32"
    span = find_span(Graph(half)).nodes
    assert Counter(node.op_type for node in span) == Counter(
        node.op_type for node in find_span(Graph(model)).nodes
    ) + Counter({"Cast": 1})
    for node in span:
        assert {kinds[name] for name in node.input if name in kinds} <= {"fp16"}
    assert len(half.SerializeToString()) < 0.7 * len(model.SerializeToString())


def test_outputs_deviate_by_the_rounding_of_fp16_and_maps_keep_their_grid() -> None:
    model = small_network(1)
    half = convert_to_half(model)
    for found in (outputs(half), outputs(simulate_half(half))):
        for name, expected, value in zip(OUTPUT_NAMES, outputs(model), found, strict=True):
            assert value.dtype == np.float32
            apart = np.abs(value - expected).max()
            assert 0 < apart < 3e-3 * np.abs(expected).max(), name
        assert found[2].shape == (len(FOVS), *GRID)


def test_the_simulation_rounds_intermediate_values_which_the_cpu_does_not() -> None:
    half = convert_to_half(plain([NODE("Conv", ["image", "k"], ["y"]), POOL], IDENTITY))
    fov = np.random.default_rng(0).normal(0, 100, (3, 9, 11)).astype(np.float32)
    found = simulate_half(half)
    found.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    import onnxruntime as ort

    session = ort.InferenceSession(found.SerializeToString(), providers=["CPUExecutionProvider"])
    (rounded,) = session.run(["y"], {"image": fov[None]})
    np.testing.assert_array_equal(rounded[0], fov.astype(np.float16).astype(np.float32))


def test_a_value_that_leaves_the_backbone_twice_is_cast_once_and_used_in_fp16_inside() -> None:
    model = plain(
        [
            NODE("Conv", ["image", "k"], ["a"]),
            NODE("Relu", ["a"], ["y"]),
            POOL,
            NODE("Neg", ["a"], ["other"]),
        ],
        IDENTITY,
    )
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["N", 3, 9, 11]))
    half = convert_to_half(model)
    onnx.checker.check_model(half, full_check=True)
    assert [node.op_type for node in half.graph.node] == [
        *("Cast", "Conv", "Cast", "Relu", "Cast", "GlobalMaxPool", "Neg")
    ]
    assert next(node for node in half.graph.node if node.op_type == "Relu").input[0] == "a/fp16"


@pytest.mark.parametrize(
    ("nodes", "constants", "message"),
    [
        (
            [NODE("Conv", ["image", "k"], ["a"]), NODE("Celu", ["a"], ["y"]), POOL],
            IDENTITY,
            "operations without a known fp16 form: Celu",
        ),
        (
            [NODE("Conv", ["image", "k"], ["y"]), POOL],
            {"k": IDENTITY["k"] * np.float32(1e5)},
            "its constant k has a value of 1e+05, beyond fp16",
        ),
        ([NODE("Relu", ["image"], ["y"]), POOL], {}, "no convolution"),
        (
            [NODE("Conv", ["image", "k"], ["y"]), NODE("Softplus", ["y"], ["features"])],
            IDENTITY,
            "features are computed by Softplus, expected GlobalMaxPool or ReduceMax",
        ),
    ],
)
def test_graphs_that_cannot_be_converted_are_rejected(nodes, constants, message: str) -> None:
    with pytest.raises(VariantError, match=message.replace("+", r"\+")):
        convert_to_half(plain(nodes, constants))


def test_the_largest_activation_is_that_of_any_tensor_and_may_be_negative() -> None:
    peak = largest_activation(small_network(1, gain=1e6), FOVS, LOW, HIGH, 1)
    assert peak > HALF_MAX
    usual = largest_activation(small_network(1), FOVS, LOW, HIGH, 1)
    assert 1 < usual < 1000
    negative = plain([NODE("Conv", ["image", "k"], ["a"]), NODE("Relu", ["a"], ["y"]), POOL], IDENTITY)
    for name in ("low", "high"):  # as all networks have
        negative.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]))
    fov = np.full((3, 9, 11), -7, np.float32)
    assert largest_activation(negative, [fov], LOW, HIGH, 1) == 7


def test_the_corrected_head_has_the_mean_hidden_inputs_of_fp32() -> None:
    model = small_network(1)
    half = simulate_half(convert_to_half(model))
    (expected,), (found,) = outputs(model, ["features"]), outputs(half, ["features"])
    corrected = correct_head(half, expected, found)
    assert corrected is not None
    for one in (model, half, corrected):
        one.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    wanted, before, after = (outputs(one, ["z"])[0].mean(axis=0) for one in (model, half, corrected))
    assert np.abs(before - wanted).max() > 1e-5
    np.testing.assert_allclose(after, wanted, atol=2e-6)
    assert correct_head(plain([NODE("Conv", ["image", "k"], ["y"]), POOL], IDENTITY), expected, found) is None


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("group", [1, 3])
def test_corrected_biases_give_each_channel_the_mean_of_fp32(group: int, with_bias: bool) -> None:
    rng = np.random.default_rng(5)
    # Inputs with a mean: only there do rounding errors of weights add up.
    fovs = rng.uniform(50, 90, (8, 3, 9, 11)).astype(np.float32)
    constants = {"k": rng.normal(0, 1, (6, 3 // group, 3, 3)).astype(np.float32)}
    inputs = ["image", "k"]
    if with_bias:
        constants["b"] = rng.normal(0, 1, 6).astype(np.float32)
        inputs.append("b")
    model = plain([NODE("Conv", inputs, ["y"], group=group), POOL], constants)
    low, high = np.zeros(3, np.float32), np.ones(3, np.float32)

    def means(one: onnx.ModelProto) -> np.ndarray:
        extended = onnx.ModelProto()
        extended.CopyFrom(one)
        for name in ("low", "high"):
            extended.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]))
        extended.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
        (found,) = run_network(extended.SerializeToString(), ["y"], fovs, low, high, 1)
        return found.mean(axis=(0, 2, 3), dtype=np.float64)

    with_ranges = onnx.ModelProto()
    with_ranges.CopyFrom(model)
    for name in ("low", "high"):
        with_ranges.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]))
    corrected = correct_biases(with_ranges, fovs, low, high, 1)
    del corrected.graph.input[1:]
    rounded = onnx.ModelProto()
    for one in (model, corrected):  # with weights as fp16 has them, computed in fp32
        copy = onnx.ModelProto()
        copy.CopyFrom(one)
        for tensor in copy.graph.initializer:
            if tensor.name == "k":
                array = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(array, "k"))
        if one is model:
            rounded = copy
        else:
            corrected = copy
    before, after = (np.abs(means(one) - means(model)).max() for one in (rounded, corrected))
    assert after < before / 20
    onnx.checker.check_model(convert_to_half(corrected), full_check=True)
