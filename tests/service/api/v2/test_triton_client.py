"""``/v2`` on a real server, with Triton's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException
from websockets.sync.client import connect

from senoscope.engine.gradcam import ensemble_map
from support import miniature as mini
from support.image_bytes import npy
from support.inference_requests import DATATYPES, MODEL, post, request
from support.servers import Server

SMALL = {"probability", "label", "network_probabilities", *(f"gradcam_{name}" for name in mini.NAMES)}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.url.removeprefix("http://"), concurrency=4) as connected:
        yield connected


def image(pixels: np.ndarray, *, binary: bool = True) -> triton.InferInput:
    datatype = next(name for name, dtype in DATATYPES.items() if dtype == pixels.dtype)
    return triton.InferInput("image", list(pixels.shape), datatype).set_data_from_numpy(pixels, binary)


def classified(server: Server, pixels: np.ndarray) -> list[dict]:
    """Return the results of ``POST /v1/classify`` for the same pixels."""
    answer = httpx.post(f"{server.url}/v1/classify?cam=grid", content=npy(pixels), timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready(MODEL, "2")
    server = client.get_server_metadata()
    assert server["name"] == "senoscope"
    assert "binary_tensor_data" in server["extensions"]
    index = client.get_model_repository_index()
    assert [(model["name"], model["version"], model["state"]) for model in index] == [(MODEL, "1", "READY")]


def test_model_metadata_and_config_agree(client: triton.InferenceServerClient) -> None:
    metadata = client.get_model_metadata(MODEL)
    assert metadata == client.get_model_metadata(MODEL, "1")
    assert (metadata["name"], metadata["versions"]) == (MODEL, ["1"])
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 250, 300]}]
    shapes = {output["name"]: output["shape"] for output in metadata["outputs"]}
    assert set(shapes) == SMALL | {"gradcam"}
    assert shapes["probability"] == [-1]
    assert shapes["network_probabilities"] == [-1, 7]
    assert shapes["gradcam"] == [-1, 250, 300]
    assert shapes["gradcam_efficientnet_b4"] == [-1, 8, 10]
    config = client.get_model_config(MODEL)
    assert config == client.get_model_config(MODEL, "1")
    assert config["max_batch_size"] == 512
    assert config["input"][0]["dims"] == [3, 250, 300]
    assert {output["name"]: [-1, *output["dims"]] for output in config["output"]} == shapes
    assert config["parameters"]["networks"]["string_value"].split(",") == list(mini.NAMES)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_the_same_pixels_get_the_same_answer_as_by_classify(
    server: Server, client: triton.InferenceServerClient, fovs: np.ndarray, datatype: str
) -> None:
    pixels = np.minimum(fovs, np.iinfo(np.uint8).max if datatype == "UINT8" else 65535)
    pixels = pixels.astype(DATATYPES[datatype])
    wanted = classified(server, pixels)
    answer = client.infer(MODEL, [image(pixels)], request_id="the request's own")
    response = answer.get_response()
    assert (response["model_name"], response["model_version"]) == (MODEL, "1")
    assert response["id"] == "the request's own"
    assert {output["name"] for output in response["outputs"]} == SMALL
    probabilities = np.array([result["probability"] for result in wanted], np.float32)
    np.testing.assert_array_equal(answer.as_numpy("probability"), probabilities)
    assert answer.as_numpy("probability").dtype == np.float32
    assert [label.decode() for label in answer.as_numpy("label")] == [result["label"] for result in wanted]
    networks = np.array([[result["networks"][name] for name in mini.NAMES] for result in wanted], np.float32)
    np.testing.assert_array_equal(answer.as_numpy("network_probabilities"), networks)
    for name in mini.NAMES:
        grids = np.array([result["gradcam"]["grids"][name] for result in wanted])
        np.testing.assert_allclose(answer.as_numpy(f"gradcam_{name}"), grids, rtol=1e-3, atol=1e-6)


def test_json_and_binary_tensors_are_equal(client: triton.InferenceServerClient, fovs: np.ndarray) -> None:
    names = ["gradcam", "label", "probability", "gradcam_xception"]
    answers = [
        client.infer(
            MODEL,
            [image(fovs[:2], binary=sent)],
            outputs=[triton.InferRequestedOutput(name, binary_data=binary) for name in names],
        )
        for sent in (False, True)
        for binary in (False, True)
    ]
    assert [output["name"] for output in answers[0].get_response()["outputs"]] == names
    assert all("data" in output for output in answers[0].get_response()["outputs"])
    for answer in answers[1:]:
        for name in names[:1] + names[2:]:
            np.testing.assert_array_equal(answer.as_numpy(name), answers[0].as_numpy(name))
    as_text, as_bytes = (answers[k].as_numpy("label").tolist() for k in (0, 1))
    assert as_text == ["senescent", "control"]
    assert as_bytes == [b"senescent", b"control"]


def test_gradcam_is_the_ensembles_map(client: triton.InferenceServerClient, fovs: np.ndarray) -> None:
    names = ["gradcam", "network_probabilities", *(f"gradcam_{name}" for name in mini.NAMES)]
    answer = client.infer(MODEL, [image(fovs)], outputs=[triton.InferRequestedOutput(name) for name in names])
    maps = answer.as_numpy("gradcam")
    assert maps.shape == (4, 250, 300)
    assert maps[0].max() > 0.5
    for n in range(4):
        grids = [np.ascontiguousarray(answer.as_numpy(f"gradcam_{name}")[n]) for name in mini.NAMES]
        wanted = ensemble_map(grids, answer.as_numpy("network_probabilities")[n], 250, 300)
        np.testing.assert_allclose(maps[n], wanted, atol=1e-6)


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
@pytest.mark.parametrize("received", [None, "gzip", "deflate"])
def test_compressed_bodies(
    client: triton.InferenceServerClient, fovs: np.ndarray, sent: str | None, received: str | None
) -> None:
    answer = client.infer(
        MODEL, [image(fovs)], request_compression_algorithm=sent, response_compression_algorithm=received
    )
    assert [label.decode() for label in answer.as_numpy("label")] == ["senescent", "control"] * 2


def test_only_clients_that_accept_a_single_coding_get_compressed_answers(
    server: Server, fovs: np.ndarray
) -> None:
    body, headers = request(fovs[:1])
    for accept, coding in (("gzip, deflate, br", None), ("gzip", "gzip"), ("identity", None)):
        answer = post(server, body, {**headers, "Accept-Encoding": accept})
        assert answer.headers.get("content-encoding") == coding
        assert answer.json()["outputs"][1]["data"] == ["senescent"]


def test_requests_in_parallel_get_their_own_answers(
    client: triton.InferenceServerClient, fovs: np.ndarray
) -> None:
    waiting = [
        client.async_infer(MODEL, [image(fovs if k % 2 else fovs[::-1])], request_id=str(k)) for k in range(8)
    ]
    for k, handle in enumerate(waiting):
        answer = handle.get_result()
        assert answer.get_response()["id"] == str(k)
        labels = [label.decode() for label in answer.as_numpy("label")]
        assert labels == (["senescent", "control"] if k % 2 else ["control", "senescent"]) * 2


def test_asyncio_client(server: Server, fovs: np.ndarray) -> None:
    async def ask() -> np.ndarray:
        async with triton_aio.InferenceServerClient(server.url.removeprefix("http://")) as asking:
            assert await asking.is_model_ready(MODEL)
            answer = await asking.infer(MODEL, [image(fovs)])
            return answer.as_numpy("label")

    assert asyncio.run(ask()).tolist() == [b"senescent", b"control"] * 2


def test_errors_reach_tritons_client(client: triton.InferenceServerClient, fovs: np.ndarray) -> None:
    with pytest.raises(
        InferenceServerException, match="model 'other' is not loaded; the loaded model is 'miniature'"
    ) as raised:
        client.infer("other", [image(fovs)])
    assert raised.value.status() == "404"
    with pytest.raises(InferenceServerException, match="no version '7'"):
        client.infer(MODEL, [image(fovs)], model_version="7")
    with pytest.raises(InferenceServerException, match=r"shape \[4, 3, 250, 299\]") as raised:
        client.infer(MODEL, [image(np.ascontiguousarray(fovs[..., 1:]))])
    assert raised.value.status() == "400"
    classes = [triton.InferRequestedOutput("probability", class_count=2)]
    with pytest.raises(InferenceServerException, match="'classification'"):
        client.infer(MODEL, [image(fovs)], outputs=classes)


def test_its_results_are_sent_to_subscribers(
    server: Server, client: triton.InferenceServerClient, fovs: np.ndarray
) -> None:
    with connect(server.ws) as live:
        answer = client.infer(MODEL, [image(fovs)])
        results = [json.loads(live.recv(timeout=30)) for _ in fovs]
    assert [(result["source"]["kind"], result["source"]["frame"]) for result in results] == [
        ("upload", n) for n in range(4)
    ]
    probabilities = np.array([result["probability"] for result in results], np.float32)
    np.testing.assert_array_equal(probabilities, answer.as_numpy("probability"))
    assert httpx.get(server.url + results[0]["gradcam"]["href"]).status_code == 200
