"""A miniature ensemble: seven tiny graphs that keep the networks' contract, built without TensorFlow.

Each averages the scaled image over cells of its grid, mixes the channels, and goes through the paper's
head. Bright SRS makes them answer "senescent", so labels can be told beforehand.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from senoscope.engine.manifest import (
    BackboneWeights,
    Channel,
    ChannelRange,
    Combination,
    Expected,
    Input,
    Manifest,
    Network,
    NormalizationSpec,
    Parity,
    TestVector,
    Training,
    Variant,
    sha256_of,
)

NAMES = (
    "inception_v3",
    "efficientnet_b4",
    "densenet121",
    "resnet50",
    "mobilenet",
    "xception",
    "inception_resnet_v2",
)
GRIDS = ((6, 8), (8, 10), (7, 9), (8, 10), (7, 9), (8, 10), (6, 8))
FEATURES = 5
LOW, HIGH = 0.0, 1000.0


def bright(channels: int = 3, height: int = 250, width: int = 300, level: int = 900) -> np.ndarray:
    """A field of view, uint16 [C, H, W], that the miniature ensemble calls senescent."""
    return np.full((channels, height, width), level, np.uint16)


def dark(channels: int = 3, height: int = 250, width: int = 300) -> np.ndarray:
    """A field of view that it calls control."""
    return bright(channels, height, width, level=60)


def _graph(seed: int, grid: tuple[int, int], channels: int, height: int, width: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    mix = rng.uniform(0, 0.1, (FEATURES, channels, 1, 1)).astype(np.float32)
    mix[:, 0] += 1.0
    w1 = rng.uniform(0.5, 1.0, (FEATURES, 4)).astype(np.float32) / (FEATURES * 64)
    b1 = rng.uniform(-0.2, 0.2, 4).astype(np.float32) - 1.5
    w2 = rng.uniform(1.0, 1.5, (4, 1)).astype(np.float32)
    constants = {
        "mix": mix,
        "w1": w1,
        "b1": b1,
        "w2": w2,
        "b2": np.array([-1.0], np.float32),
        "w2_row": np.ascontiguousarray(w2.T),
        "w1_columns": np.ascontiguousarray(w1.T),
        "column": np.array([1, -1, 1, 1], np.int64),
        "row": np.array([0, -1, 1, 1], np.int64),
        "vector": np.array([-1], np.int64),
        "spatial": np.array([2, 3], np.int64),
        "channel_axis": np.array([1], np.int64),
        "top": np.array(255, np.float32),
        "zero": np.array(0, np.float32),
        "cells": np.array(grid[0] * grid[1], np.float32),
    }
    kernel = [height // grid[0], width // grid[1]]
    node = helper.make_node
    nodes = [
        node("Reshape", ["low", "column"], ["low4"]),
        node("Reshape", ["high", "column"], ["high4"]),
        node("Sub", ["image", "low4"], ["above"]),
        node("Sub", ["high4", "low4"], ["span"]),
        node("Div", ["above", "span"], ["unit"]),
        node("Mul", ["unit", "top"], ["scaled"]),
        node("Clip", ["scaled", "zero", "top"], ["clipped"]),
        node("Floor", ["clipped"], ["counts"]),
        node("AveragePool", ["counts"], ["cells_mean"], kernel_shape=kernel, strides=kernel),
        node("Conv", ["cells_mean", "mix"], ["mixed"]),
        node("Relu", ["mixed"], ["activation"]),
        node("ReduceMax", ["activation"], ["features"], axes=[2, 3], keepdims=0),
        node("Gemm", ["features", "w1", "b1"], ["z"]),
        node("Relu", ["z"], ["hidden"]),
        node("Gemm", ["hidden", "w2", "b2"], ["logit2"]),
        node("Reshape", ["logit2", "vector"], ["logit"]),
        node("Sigmoid", ["logit"], ["probability"]),
        node("Greater", ["z", "zero"], ["on"]),
        node("Where", ["on", "w2_row", "zero"], ["through"]),
        node("MatMul", ["through", "w1_columns"], ["gradient"]),
        node("Div", ["gradient", "cells"], ["weights"]),
        node("Unsqueeze", ["weights", "spatial"], ["weights4"]),
        node("Mul", ["activation", "weights4"], ["weighted"]),
        node("ReduceSum", ["weighted", "channel_axis"], ["summed"], keepdims=0),
        node("Relu", ["summed"], ["gradcam"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "miniature",
        [
            value("image", TensorProto.FLOAT, ["N", channels, height, width]),
            value("low", TensorProto.FLOAT, [channels]),
            value("high", TensorProto.FLOAT, [channels]),
        ],
        [
            value("logit", TensorProto.FLOAT, ["N"]),
            value("probability", TensorProto.FLOAT, ["N"]),
            value("gradcam", TensorProto.FLOAT, ["N", *grid]),
            value("features", TensorProto.FLOAT, ["N", FEATURES]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _test_fov(channels: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 1000, (channels, height, width), dtype=np.uint16)


@cache  # most ensembles have the same networks
def _network(seed: int, grid: tuple[int, int], channels: int, height: int, width: int) -> tuple[bytes, float]:
    """A network's file, and what it answers to the test's field of view."""
    model = _graph(seed, grid, channels, height, width)
    return model.SerializeToString(), _evaluate(model, _test_fov(channels, height, width))


def reference_probability(model_path: Path, fov: np.ndarray) -> float:
    """What the reference implementation of ONNX, which is not the engine's runtime, answers."""
    return _evaluate(onnx.load(model_path), fov)


def _evaluate(model: onnx.ModelProto, fov: np.ndarray) -> float:
    from onnx.reference import ReferenceEvaluator

    channels = fov.shape[0]
    feeds = {
        "image": fov[None].astype(np.float32),
        "low": np.full(channels, LOW, np.float32),
        "high": np.full(channels, HIGH, np.float32),
    }
    return float(ReferenceEvaluator(model).run(["probability"], feeds)[0][0])


def build(
    directory: Path,
    *,
    channels: tuple[str, ...] = ("SRS", "TPEF", "Transmission"),
    height: int = 250,
    width: int = 300,
    name: str = "miniature",
    for_science: bool = False,
    seed: int = 0,
) -> Path:
    """Write a miniature ensemble into ``directory`` and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    np.save(directory / "test_vector.npy", _test_fov(len(channels), height, width))
    zeros = "0" * 64
    networks, expected = [], {}
    for k, (network, grid) in enumerate(zip(NAMES, GRIDS, strict=True)):
        path = directory / f"{network}.onnx"
        content, expected[network] = _network(seed + k, grid, len(channels), height, width)
        path.write_bytes(content)
        networks.append(
            Network(
                name=network,
                architecture="miniature",
                opset=17,
                gradcam_grid=grid,
                feature_size=FEATURES,
                backbone_weights=BackboneWeights(source="random", sha256=zeros),
                seed=seed + k,
                variants=(
                    Variant(
                        precision="fp32",
                        file=path.name,
                        bytes=path.stat().st_size,
                        sha256=sha256_of(path),
                        parity=Parity(max_abs_logit=0, max_abs_gradcam=0),
                    ),
                ),
            )
        )
    manifest = Manifest(
        name=name,
        version="1",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        licence="BSD-3-Clause",
        intended_use="tests",
        for_science=for_science,
        authors=("The Senoscope developers",),
        cite=(),
        input=Input(
            height=height, width=width, channels=tuple(Channel(name=c) for c in channels), pixel_size_um=0.35
        ),
        normalization=NormalizationSpec(
            channels=tuple(ChannelRange(low=LOW, high=HIGH) for _ in channels), fitted_on="nothing"
        ),
        networks=tuple(networks),
        ensemble=Combination(),
        training=Training(config={}, data_sha256=zeros, split={}, runs=1, software={}),
        test_vectors=(
            TestVector(
                file="test_vector.npy",
                sha256=sha256_of(directory / "test_vector.npy"),
                expected=Expected(probability=float(np.mean(list(expected.values()))), networks=expected),
                tolerance=1e-4,
            ),
        ),
    )
    (directory / "ensemble.json").write_text(manifest.to_json())
    return directory
