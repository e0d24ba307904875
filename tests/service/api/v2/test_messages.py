"""Requests and answers of the Open Inference Protocol as bytes; its decoder with arbitrary input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senoscope.api.v2.messages import Inference, decode, encode, json_length_of
from senoscope.api.v2.signature import Signature
from senoscope.api.v2.tensors import padding
from senoscope.engine import Ensemble
from senoscope.fov import Fov
from senoscope.scheduling.active_ensemble import ActiveEnsemble
from senoscope_client.errors import NotReady, PayloadTooLarge, SenoscopeError
from senoscope_client.images.reader import Limits
from senoscope_client.models.result import Source
from support import miniature as mini
from support.inference_requests import COUNT, PIXELS, as_json, request


@pytest.fixture(scope="module")
def active(miniature: Path) -> Iterator[ActiveEnsemble]:
    with Ensemble.load(miniature, device="cpu", threads=1) as ensemble:
        yield ActiveEnsemble.of(ensemble, deadline_ms=24)


@pytest.fixture(scope="module")
def signature(active: ActiveEnsemble) -> Signature:
    return Signature(active, max_fovs=512)


@pytest.mark.parametrize("length_of_id", range(0, 20, 3))
def test_binary_pixels_are_aligned_and_not_copied(signature: Signature, length_of_id: int) -> None:
    pixels = np.random.default_rng(1).random((2, 3, 250, 300), np.float32)
    whole, headers = request(pixels, _id="x" * length_of_id)
    length = json_length_of(headers["Inference-Header-Content-Length"])
    pad = padding(length)
    body = memoryview(bytearray(pad) + whole)[pad:]
    inference = decode(body, length, signature, Limits())
    np.testing.assert_array_equal(inference.pixels, pixels)
    assert np.shares_memory(inference.pixels, np.frombuffer(body, np.uint8))
    assert inference.pixels.flags.aligned


def test_results_of_another_ensemble_are_refused(
    active: ActiveEnsemble, signature: Signature, tmp_path: Path
) -> None:
    fov = Fov(mini.bright(), Source(kind="upload"), spec=active.spec)
    (prediction,) = active.ensemble.predict(fov.pixels)
    record = active.maker.make(fov, prediction, active.ensemble.model_range, 0, 0)
    signature.require_same([record])
    asked = Inference(None, fov.pixels, ((signature.outputs["label"], False),))
    answer = encode(signature, asked, [record])
    assert json.loads(answer.parts[0])["outputs"][0]["data"] == ["senescent"]
    with Ensemble.load(mini.build(tmp_path / "other", seed=50), device="cpu", threads=1) as other:
        loaded_since = Signature(ActiveEnsemble.of(other, deadline_ms=24), max_fovs=512)
    with pytest.raises(NotReady, match="another ensemble"):
        loaded_since.require_same([record])


def test_requests_beyond_the_limits_are_not_decoded(signature: Signature) -> None:
    limits = Limits(max_decoded_bytes=1 << 20)
    for body, headers in (request(np.zeros((2, 3, 250, 300), np.float32)), as_json([0] * COUNT)):
        header = headers.get("Inference-Header-Content-Length")
        with pytest.raises(PayloadTooLarge, match="the limit is"):
            decode(memoryview(body), json_length_of(header), signature, limits)


def check(body: bytes, header: str | None, signature: Signature) -> None:
    """Check that decoding gives a request that can be computed, or an error of the client."""
    try:
        decoded: Inference | SenoscopeError = decode(
            memoryview(bytearray(body)), json_length_of(header), signature, Limits()
        )
    except SenoscopeError as refused:
        decoded = refused
    if isinstance(decoded, SenoscopeError):
        assert 400 <= decoded.status < 500
        assert decoded.detail.isprintable()
    else:
        assert decoded.pixels.shape[1:] == (3, 250, 300)
        assert decoded.pixels.dtype in (np.uint8, np.uint16, np.float32)
        assert decoded.outputs


HEADERS = st.none() | st.integers(-5, 600_000).map(str) | st.text(max_size=20)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=300), header=HEADERS)
def test_any_bytes_decode_or_are_refused(signature: Signature, body: bytes, header: str | None) -> None:
    check(body, header, signature)


@st.composite
def nearly_right(draw: st.DrawFn) -> tuple[bytes, str | None]:
    """Return a valid request with arbitrary parts."""

    def value(*right: object) -> object:
        return draw(st.sampled_from(right) | ANYTHING) if draw(st.integers(0, 4)) == 0 else right[0]

    tensor = draw(st.sampled_from([PIXELS, PIXELS[:-1], PIXELS * 2, b""]))
    given_input = {
        "name": value("image", "label"),
        "shape": [value(1, 2, 0, -1, 10**40), value(3, 1), value(250), value(300)],
        "datatype": value("UINT8", "UINT16", "FP32", "BYTES"),
        "parameters": value({"binary_data_size": value(len(tensor), COUNT)}, None, {}),
        "data": value(None, [0] * COUNT, [[0]]),
    }
    output = {
        "name": value("label", "gradcam", "gradcam_xception"),
        "parameters": value(None, {"binary_data": 1}),
    }
    whole = {
        "id": value("1"),
        "inputs": value([given_input], [given_input] * 2),
        "outputs": value(None, [output], [output, {"name": "probability"}]),
        "parameters": value(None, {"binary_data_output": True}, {"binary_data_output": None}),
    }
    text = json.dumps(value(whole)).encode()
    return text + tensor, draw(st.just(str(len(text))) | HEADERS) if draw(st.booleans()) else str(len(text))


@settings(max_examples=300, deadline=None)
@given(nearly=nearly_right())
def test_requests_with_arbitrary_parts_decode_or_are_refused(
    signature: Signature, nearly: tuple[bytes, str | None]
) -> None:
    check(*nearly, signature)
