"""Comparison of the seven networks with Keras, with code that is independent of the export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from senoscope_client.simulation.synthetic import synthesize

pytestmark = [pytest.mark.networks, pytest.mark.timeout(900)]

NAMES = (
    "inception_v3",
    "efficientnet_b4",
    "densenet121",
    "resnet50",
    "mobilenet",
    "xception",
    "inception_resnet_v2",
)
SHAPES = {  # rows and columns of the map, number of features of the architectures
    "inception_v3": (6, 8, 2048),
    "efficientnet_b4": (8, 10, 1792),
    "densenet121": (7, 9, 1024),
    "resnet50": (8, 10, 2048),
    "mobilenet": (7, 9, 1024),
    "xception": (8, 10, 2048),
    "inception_resnet_v2": (6, 8, 1536),
}
TOLERANCE = 1e-4


def backbone_with_preprocessing(tf, monkeypatch, name: str, weights: Path):
    """Return the backbone and the preprocessing function of ``keras.applications``."""
    from keras import applications

    builder, preprocess = {
        "inception_v3": (applications.InceptionV3, applications.inception_v3.preprocess_input),
        "efficientnet_b4": (applications.EfficientNetB4, applications.efficientnet.preprocess_input),
        "densenet121": (applications.DenseNet121, applications.densenet.preprocess_input),
        "resnet50": (applications.ResNet50, applications.resnet50.preprocess_input),
        "mobilenet": (applications.MobileNet, applications.mobilenet.preprocess_input),
        "xception": (applications.Xception, applications.xception.preprocess_input),
        "inception_resnet_v2": (
            applications.InceptionResNetV2,
            applications.inception_resnet_v2.preprocess_input,
        ),
    }[name]
    # With weights="imagenet", because EfficientNet has all of its layers only then; the download is
    # replaced by the local file.
    from keras.src.utils import file_utils

    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(weights))
    return builder(include_top=False, weights="imagenet", input_shape=(250, 300, 3)), preprocess


def grad_cam(tf, activation, head):
    with tf.GradientTape() as tape:
        tape.watch(activation)
        pooled = tf.reduce_max(activation, axis=[1, 2])
        hidden = tf.nn.relu(tf.linalg.matmul(pooled, head["w1"]) + head["b1"])
        logit = tf.linalg.matvec(hidden, head["w2"]) + head["b2"]
    gradient = tape.gradient(logit, activation)
    alpha = tf.reduce_mean(gradient, axis=[1, 2])
    weighted = tf.reduce_sum(activation * alpha[:, None, None, :], axis=-1)
    return logit.numpy(), tf.nn.relu(weighted).numpy()


def read_head(path: Path, tf) -> dict:
    tensors = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    arrays = {key: onnx.numpy_helper.to_array(tensors[f"head/{key}"]) for key in ("w1", "b1", "w2", "b2")}
    return {key: tf.constant(array.ravel() if key != "w1" else array) for key, array in arrays.items()}


def open_session(path: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def bounds(ensemble: Path) -> dict[str, np.ndarray]:
    channels = json.loads((ensemble / "ensemble.json").read_text())["normalization"]["channels"]
    return {key: np.array([channel[key] for channel in channels], np.float32) for key in ("low", "high")}


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_those_of_keras_and_a_gradient_tape(
    name, starter_ensemble, starter_made_anew, tensorflow, monkeypatch
):
    """Compare the network that the shipped recipe rebuilds with Keras' weights from the same seeds."""
    tf = tensorflow
    backbone, preprocess = backbone_with_preprocessing(
        tf, monkeypatch, name, starter_made_anew / "keras" / f"{name}.weights.h5"
    )
    head = read_head(starter_ensemble / f"{name}.onnx", tf)
    session, limits = open_session(starter_ensemble / f"{name}.onnx"), bounds(starter_ensemble)
    low, high = (limits[key][:, None, None] for key in ("low", "high"))

    positive_maps = 0
    for index in range(8):
        pixels = synthesize(321, index).pixels.astype(np.float32)
        bytes_ = np.floor(np.clip((pixels - low) / (high - low) * np.float32(255), 0, 255))
        inputs = preprocess(np.ascontiguousarray(bytes_.transpose(1, 2, 0))[None])
        logit, gradcam = grad_cam(tf, backbone(inputs, training=False), head)
        got_logit, got_probability, got_gradcam = session.run(
            ["logit", "probability", "gradcam"], {"image": pixels[None], **limits}
        )
        assert np.abs(got_logit - logit).max() <= TOLERANCE * max(np.abs(logit).max(), 1), index
        np.testing.assert_allclose(got_probability, 1 / (1 + np.exp(-logit)), atol=TOLERANCE)
        assert (got_gradcam >= 0).all()
        assert np.abs(got_gradcam - gradcam).max() <= TOLERANCE * gradcam.max(), index
        positive_maps += gradcam.max() > 0
    assert positive_maps  # otherwise the maps were not compared


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_outputs_are_as_documented(name, starter_ensemble):
    rows, columns, features = SHAPES[name]
    session = open_session(starter_ensemble / f"{name}.onnx")
    inputs = {i.name: (i.type, i.shape) for i in session.get_inputs()}
    outputs = {o.name: (o.type, o.shape) for o in session.get_outputs()}
    real = "tensor(float)"
    assert inputs == {"image": (real, ["N", 3, 250, 300]), "low": (real, [3]), "high": (real, [3])}
    assert outputs == {
        "logit": (real, ["N"]),
        "probability": (real, ["N"]),
        "gradcam": (real, ["N", rows, columns]),
        "features": (real, ["N", features]),
    }
    limits = bounds(starter_ensemble)
    image = np.stack([synthesize(7, k).pixels for k in range(2)]).astype(np.float32)
    together = session.run(None, {"image": image, **limits})
    for k in range(2):
        alone = session.run(None, {"image": image[k : k + 1], **limits})
        for whole, one in zip(together, alone, strict=True):
            assert whole.shape[0] == 2
            np.testing.assert_allclose(whole[k], one[0], rtol=1e-3, atol=1e-3 * np.abs(one).max())


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_keeps_the_blocked_layout(name, starter_ensemble):
    graph = onnx.load(starter_ensemble / f"{name}.onnx").graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("Transpose") <= 1
    assert "Pad" not in kinds
    producers = {output: node.op_type for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            assert producers[node.input[0]] != "Conv"
    used = {entry for node in graph.node for entry in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used
    assert {"head/w1", "head/b1", "head/w2", "head/b2"} <= used


def test_the_manifest_matches_the_files(starter_ensemble):
    from senoscope.engine.manifest import read_manifest, verify_file

    manifest, _ = read_manifest(starter_ensemble)
    assert tuple(network.name for network in manifest.networks) == NAMES
    assert not manifest.for_science
    assert "not for science" in manifest.intended_use
    assert manifest.metrics["held_out_fovs"] >= 30
    assert manifest.metrics["held_out_accuracy"] >= 0.95
    for network in manifest.networks:
        (variant,) = network.variants
        verify_file(starter_ensemble / variant.file, variant.sha256)
        assert (*network.gradcam_grid, network.feature_size) == SHAPES[network.name]
        assert variant.parity.max_abs_gradcam <= TOLERANCE
        assert network.metrics["parity_relative_logit"] <= TOLERANCE


def test_outputs_for_test_vectors_equal_those_of_keras(starter_ensemble):
    from senoscope.engine.manifest import read_manifest

    manifest, _ = read_manifest(starter_ensemble)
    limits = bounds(starter_ensemble)
    for vector in manifest.test_vectors:
        image = np.load(starter_ensemble / vector.file).astype(np.float32)[None]
        for name, expected in vector.expected.networks.items():
            (got,) = open_session(starter_ensemble / f"{name}.onnx").run(
                ["probability"], {"image": image, **limits}
            )
            assert abs(float(got[0]) - expected) <= TOLERANCE
        assert vector.expected.probability == pytest.approx(np.mean(list(vector.expected.networks.values())))
