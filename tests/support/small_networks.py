"""An ensemble of two small convolutional networks with the real networks' head, built without TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from senoscope.engine.manifest import Expected, Manifest, read_manifest, sha256_of
from senoscope_training.export.graph import assemble, save
from senoscope_training.export.parity import run_network
from senoscope_training.networks.architectures import ARCHITECTURES
from senoscope_training.networks.head import Head
from support import miniature

HEIGHT, WIDTH = 56, 72
GRID, FEATURES = (14, 18), 24
NAMES = ("mobilenet", "resnet50")
LOW, HIGH = (np.full(3, side, np.float32) for side in (miniature.LOW, miniature.HIGH))


def small_network(seed: int, gain: float = 1.0) -> onnx.ModelProto:
    """Return a network with most constructs of the seven networks.

    Parameters
    ----------
    gain : float
        Factor of the first convolution's weights.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.3) -> np.ndarray:
        return rng.normal(0, scale, shape).astype(np.float32)

    constants = {
        "first": normal(8, 3, 3, 3) * np.float32(gain),
        "first_shift": normal(8),
        "six": np.array(6, np.float32),
        "nought": np.array(0, np.float32),
        "depthwise": normal(8, 1, 3, 3),
        "norm_scale": rng.uniform(0.5, 1.5, 8).astype(np.float32),
        "norm_shift": normal(8),
        "norm_mean": normal(8),
        "norm_variance": rng.uniform(0.5, 1.5, 8).astype(np.float32),
        "wide": normal(16, 8, 1, 1),
        "squeeze": normal(4, 24, 1, 1),
        "excite": normal(24, 4, 1, 1),
        "last": normal(24, 24, 3, 3, scale=0.1),
        "last_shift": normal(24),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["preprocessed", "first", "first_shift"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Clip", ["a", "nought", "six"], ["b"]),
        node("Conv", ["b", "depthwise"], ["c"], group=8, pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", *(n for n in constants if n.startswith("norm"))], ["d"]),
        node("Relu", ["d"], ["e"]),
        node("Conv", ["e", "wide"], ["f"]),
        node("Concat", ["e", "f"], ["g"], axis=1),
        node("ReduceMean", ["g"], ["mean"], axes=[2, 3], keepdims=1),
        node("Conv", ["mean", "squeeze"], ["h"]),
        node("Relu", ["h"], ["i"]),
        node("Conv", ["i", "excite"], ["j"]),
        node("Sigmoid", ["j"], ["k"]),
        node("Mul", ["g", "k"], ["l"]),
        node("MaxPool", ["l"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["m", "last", "last_shift"], ["n"], pads=[1, 1, 1, 1]),
        node("Add", ["m", "n"], ["o"]),
        node("Relu", ["o"], ["activation"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small",
        [value("preprocessed", TensorProto.FLOAT, ["N", 3, HEIGHT, WIDTH])],
        [value("activation", TensorProto.FLOAT, ["N", FEATURES, *GRID])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    backbone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return assemble(backbone, ARCHITECTURES["mobilenet"].preprocessing, _head(rng), "small")


def _head(rng: np.random.Generator) -> Head:
    w1 = rng.normal(0, 0.3, (FEATURES, 4))
    return Head(w1, np.ones(4), rng.normal(0, 1.5, 4), 0.0)


def build(
    directory: Path, networks: dict[str, onnx.ModelProto] | None = None, *, for_science: bool = False
) -> Path:
    """Write an ensemble into ``directory`` and return it; by default of two small networks."""
    miniature.build(directory, height=HEIGHT, width=WIDTH, name="small", for_science=for_science)
    for path in directory.glob("*.onnx"):
        path.unlink()
    manifest, _ = read_manifest(directory)
    networks = networks or dict(zip(NAMES, (small_network(1), small_network(3)), strict=True))
    fov, entries, expected = np.load(directory / "test_vector.npy"), [], {}
    for name, model in networks.items():
        path = directory / f"{name}.onnx"
        save(model, path)
        old = next(network for network in manifest.networks if network.name == name)
        update = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        variant = old.variants[0].model_copy(update=update)
        shape = {"gradcam_grid": GRID, "feature_size": FEATURES}
        entries.append(old.model_copy(update={"variants": (variant,), **shape}))
        (probability,) = run_network(path, ["probability"], [fov], LOW, HIGH, 1)
        expected[name] = float(probability[0])
    outputs = Expected(probability=float(np.mean(list(expected.values()))), networks=expected)
    vector = manifest.test_vectors[0].model_copy(update={"expected": outputs})
    update = {"networks": tuple(entries), "test_vectors": (vector,)}
    manifest = Manifest.model_validate(manifest.model_copy(update=update).model_dump())
    (directory / "ensemble.json").write_text(manifest.to_json())
    return directory
