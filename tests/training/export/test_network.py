"""The export of a small network that has all constructs of the seven networks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from senoscope_training.export.graph import replace_head, save
from senoscope_training.export.network import export_network
from senoscope_training.export.parity import compare, keras_outputs, onnx_outputs
from senoscope_training.networks.architectures import (
    ARCHITECTURES,
    backbone_of,
    build_application,
    preprocessing,
)
from senoscope_training.networks.head import Head
from senoscope_training.networks.images import scale_to_images
from support.tiny_backbone import HEIGHT, TINY, WIDTH, tiny_backbone

LOW = np.array([10, 0, 100.5], np.float32)
HIGH = np.array([900, 37, 2047], np.float32)


def run(model: onnx.ModelProto, image: np.ndarray, *outputs: str) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(list(outputs) or None, {"image": image.astype(np.float32), "low": LOW, "high": HIGH})


def fovs(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2500, (count, 3, HEIGHT, WIDTH)).astype(np.uint16)


def preprocessed(image: np.ndarray, mode: str) -> np.ndarray:
    from keras.applications import imagenet_utils

    scaled = scale_to_images(image, LOW, HIGH).astype(np.float32)
    return imagenet_utils.preprocess_input(scaled, data_format="channels_last", mode=mode)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_outputs_equal_those_of_keras(tensorflow, mode, padding):
    tf = tensorflow
    backbone = tiny_backbone(padding=padding)
    drawn = Head.random(16, seed=3)
    head = Head(np.abs(drawn.w1), drawn.b1, drawn.w2, drawn.b2)  # so that the map is not zero
    exported = export_network(backbone, preprocessing(mode), head)
    image = fovs(4)

    activation = backbone(preprocessed(image, mode), training=False)
    with tf.GradientTape() as tape:
        tape.watch(activation)
        pooled = tf.reduce_max(activation, axis=(1, 2))
        z = tf.matmul(pooled, head.w1) + head.b1
        logit = tf.reduce_sum(tf.nn.relu(z) * head.w2, axis=-1) + head.b2
    weights = tf.reduce_mean(tape.gradient(logit, activation), axis=(1, 2), keepdims=True)
    gradcam = tf.nn.relu(tf.reduce_sum(activation * weights, axis=-1)).numpy()

    got_logit, got_probability, got_gradcam, got_features = run(exported.model, image)
    assert gradcam.max() > 0
    np.testing.assert_allclose(got_features, pooled, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got_logit, logit, rtol=1e-4)
    np.testing.assert_allclose(got_probability, tf.sigmoid(logit), rtol=1e-4)
    assert np.abs(got_gradcam - gradcam).max() <= 1e-4 * gradcam.max()


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_network_may_have_any_number_of_channels(tensorflow, monkeypatch, tmp_path, channels):
    architecture = replace(TINY, name="other", channels=channels)
    monkeypatch.setitem(ARCHITECTURES, "other", architecture)
    backbone = backbone_of("other", build_application("other", 64, 80))
    head = Head.random(backbone.output.shape[-1], seed=3)
    exported = export_network(backbone, architecture.preprocessing, head)
    save(exported.model, tmp_path / "other.onnx")
    image = np.random.default_rng(0).integers(0, 900, (2, channels, 64, 80)).astype(np.uint16)
    low, high = np.zeros(channels, np.float32), np.linspace(700, 900, channels, dtype=np.float32)
    expected = keras_outputs("other", backbone, head, image, low, high)
    compare(onnx_outputs(tmp_path / "other.onnx", image, low, high), expected).require("other")
    assert np.ptp(expected.logit) > 0


def test_a_preprocessing_for_rgb_images_is_refused_for_other_channels():
    with pytest.raises(ValueError, match="'caffe' is defined for 3 channels, not 4"):
        replace(TINY, preprocess="caffe", channels=4).preprocessing  # noqa: B018 - a property


def test_the_graph_has_no_superfluous_nodes(tensorflow):
    exported = export_network(tiny_backbone(), preprocessing("tf"))
    kinds = Counter(node.op_type for node in exported.model.graph.node)
    assert not {"Transpose", "Pad", "Identity"} & set(kinds)
    assert kinds["BatchNormalization"] == 1  # the one after the concatenation
    used = {name for node in exported.model.graph.node for name in node.input}
    assert {t.name for t in exported.model.graph.initializer} <= used


def test_the_same_network_gives_the_same_file(tensorflow):
    backbone = tiny_backbone()
    first, again = (
        export_network(backbone, preprocessing("tf"), Head.random(16, seed=3)).model.SerializeToString()
        for _ in range(2)
    )
    assert first == again


def test_any_batch_size(tensorflow):
    exported = export_network(tiny_backbone(), preprocessing("torch"))
    image = fovs(3)
    together = run(exported.model, image)
    for k in range(3):
        for whole, alone in zip(together, run(exported.model, image[k : k + 1]), strict=True):
            np.testing.assert_allclose(whole[k], alone[0], rtol=1e-5, atol=1e-6)


def test_a_head_without_active_units_gives_a_map_of_zero(tensorflow):
    head = Head.random(16, seed=0)
    off = Head(np.zeros_like(head.w1), -np.ones(4, np.float32), head.w2, 0.25)
    exported = export_network(tiny_backbone(), preprocessing("tf"), off)
    logit, gradcam = run(exported.model, fovs(2), "logit", "gradcam")
    np.testing.assert_array_equal(logit, np.float32([0.25, 0.25]))
    assert not gradcam.any()


def test_the_head_is_replaced_without_another_export(tensorflow):
    first, second = Head.random(16, seed=1), Head.random(16, seed=2)
    exported = export_network(tiny_backbone(), preprocessing("tf"), first)
    image = fovs(2)
    (before,) = run(exported.model, image, "logit")
    replace_head(exported.model, second)
    after, features = run(exported.model, image, "logit", "features")
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, second.logits(features), rtol=1e-5)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in exported.model.graph.initializer}
    np.testing.assert_array_equal(tensors["head/w1"], second.w1)
    np.testing.assert_array_equal(tensors["head/w2"][0], second.w2)
    with pytest.raises(ValueError, match="head/w1"):
        replace_head(exported.model, Head.random(17, seed=0))


def test_scaling_equals_numpy_at_the_limits(tensorflow):
    """After truncation a rounding error is a difference of one grey value, so scaling must be exact."""
    exported = export_network(tiny_backbone(), preprocessing("tf"))
    exported.model.graph.output.append(
        onnx.helper.make_tensor_value_info("clipped", onnx.TensorProto.FLOAT, None)
    )
    floored = next(n.output[0] for n in exported.model.graph.node if n.op_type == "Floor")
    exported.model.graph.output.append(
        onnx.helper.make_tensor_value_info(floored, onnx.TensorProto.FLOAT, None)
    )
    image = np.zeros((1, 3, HEIGHT * WIDTH), np.float32)
    for c in range(3):
        edges = [LOW[c], HIGH[c], np.nextafter(LOW[c], -1e9), np.nextafter(HIGH[c], 1e9), -5, 0, 65535, 1e9]
        steps = LOW[c] + (HIGH[c] - LOW[c]) * np.arange(256, dtype=np.float32) / 255
        values = np.concatenate([edges, steps, np.nextafter(steps, 0), np.nextafter(steps, 1e9)])
        image[0, c, : len(values)] = values
    image = image.reshape(1, 3, HEIGHT, WIDTH)
    (got,) = run(exported.model, image, floored)
    np.testing.assert_array_equal(got.transpose(0, 2, 3, 1), scale_to_images(image, LOW, HIGH))
    assert got.min() == 0
    assert got.max() == 255
