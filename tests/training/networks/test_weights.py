"""Sources of weights, and invalid weights."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from senoscope_training.networks import weights as weights_module
from senoscope_training.networks.architectures import (
    ARCHITECTURES,
    PAPER_ARCHITECTURES,
    backbone_of,
    build_application,
    preprocess,
    preprocessing,
)
from senoscope_training.networks.weights import (
    WeightsError,
    find_weight_file,
    plan_weights,
    verify_weight_file,
)

NAMES = tuple(one.name for one in PAPER_ARCHITECTURES)


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


def fill(directory, names=NAMES):
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / f"{name}.weights.h5").write_bytes(name.encode())


def test_auto_without_files_is_random_and_needs_no_connection(empty_cache, monkeypatch):
    monkeypatch.setattr(weights_module, "_check_reachable", lambda: pytest.fail("a connection was opened"))
    plan = plan_weights("auto", None, NAMES)
    assert not plan.files
    assert not plan.download


def test_auto_uses_the_cache_only_if_it_is_complete(empty_cache):
    fill(empty_cache, NAMES[:-1])
    assert not plan_weights("auto", None, NAMES).files
    fill(empty_cache)
    assert set(plan_weights("auto", None, NAMES).files) == set(NAMES)


def test_a_folder_must_be_complete(tmp_path):
    fill(tmp_path, NAMES[1:])
    with pytest.raises(WeightsError, match=ARCHITECTURES[NAMES[0]].notop_file):
        plan_weights("auto", tmp_path, NAMES)


def test_sha256sums_are_checked(tmp_path):
    fill(tmp_path)
    name = NAMES[0]
    path = find_weight_file(name, tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sums = tmp_path / "SHA256SUMS"
    for line in (f"{digest}  {path.name}\n", f"{digest} *{path.name}\n", "\n", f"{digest}  other.h5\n"):
        sums.write_text(line)
        verify_weight_file(name, path)
    sums.write_text(f"{'0' * 64}  {path.name}\n")
    with pytest.raises(WeightsError, match="sha256"):
        plan_weights("imagenet", tmp_path, NAMES)


def test_a_damaged_keras_file_is_refused(tmp_path):
    path = tmp_path / ARCHITECTURES["xception"].notop_file
    path.write_bytes(b"half a download")
    with pytest.raises(WeightsError, match="MD5"):
        verify_weight_file("xception", path)


def test_imagenet_without_a_connection_is_an_error_with_advice(empty_cache, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(weights_module.urllib.request, "urlopen", unreachable)
    with pytest.raises(WeightsError, match="--weights-dir"):
        plan_weights("imagenet", None, NAMES)


# Keras requests weights when it has built the whole network, which takes seconds with all but the smallest.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "mobilenet" else pytest.mark.full) for name in NAMES]
)
def test_files_and_hashes_are_those_that_keras_requests(name, tensorflow, monkeypatch):
    from keras.src.utils import file_utils

    class Requested(Exception):
        pass

    def request(fname=None, *_, file_hash=None, **__):
        raise Requested(fname, file_hash or "")

    monkeypatch.setattr(file_utils, "get_file", request)
    with pytest.raises(Requested) as requested:
        ARCHITECTURES[name].build(250, 300, weights="imagenet")
    assert requested.value.args == (ARCHITECTURES[name].notop_file, ARCHITECTURES[name].notop_md5)


@pytest.mark.parametrize("name", NAMES)
def test_preprocessing_equals_that_of_keras(name, tensorflow):
    from keras import applications

    scaled = np.random.default_rng(0).integers(0, 256, (1, 5, 6, 3)).astype(np.float32)
    module = {
        "inception_v3": applications.inception_v3,
        "densenet121": applications.densenet,
        "resnet50": applications.resnet50,
        "mobilenet": applications.mobilenet,
        "xception": applications.xception,
        "inception_resnet_v2": applications.inception_resnet_v2,
        "efficientnet_b4": applications.efficientnet,
    }[name]
    if name == "efficientnet_b4":
        expected = preprocessing("torch")  # in Keras these are layers of the model
        np.testing.assert_allclose(
            preprocess(name, scaled), scaled * expected.scale + expected.offset, rtol=1e-5
        )
    else:
        np.testing.assert_allclose(
            preprocess(name, scaled), module.preprocess_input(scaled.copy()), rtol=1e-4, atol=1e-4
        )


@pytest.mark.full
def test_efficientnet_equals_the_model_that_keras_builds_for_imagenet(tensorflow, monkeypatch, tmp_path):
    """Keras adds a layer only with weights="imagenet"; our model must equal that one for all weights."""
    from keras import applications, utils
    from keras.src.utils import file_utils

    utils.set_random_seed(0)
    application = build_application("efficientnet_b4", 64, 80)
    file = tmp_path / "efficientnet_b4.weights.h5"
    application.save_weights(file)
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(file))
    reference = applications.EfficientNetB4(include_top=False, weights="imagenet", input_shape=(64, 80, 3))

    scaled = np.random.default_rng(0).integers(0, 256, (2, 64, 80, 3)).astype(np.float32)
    actual = backbone_of("efficientnet_b4", application)(
        preprocess("efficientnet_b4", scaled), training=False
    )
    expected = reference(scaled, training=False)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())

    naive = applications.EfficientNetB4(include_top=False, weights=str(file), input_shape=(64, 80, 3))
    assert not np.allclose(naive(scaled, training=False), expected, rtol=1e-2), "Keras has changed"


def test_another_normalisation_is_refused(tensorflow):
    application = build_application("efficientnet_b4", 64, 80)
    import keras

    layer = next(x for x in application.layers if isinstance(x, keras.layers.Normalization))
    layer.adapt_mean.assign(np.zeros(3))
    with pytest.raises(ValueError, match="normalisation"):
        backbone_of("efficientnet_b4", application)
