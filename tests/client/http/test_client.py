"""The HTTP and WebSocket clients, against a server with prepared responses."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from senoscope_client.errors import (
    Busy,
    Forbidden,
    InvalidRequest,
    NotReady,
    SenoscopeError,
    Unauthorized,
    Unreachable,
    WrongFrameSize,
)
from senoscope_client.http.client import Client
from senoscope_client.http.live import LiveResults
from senoscope_client.http.retries import NO_RETRIES
from support.service_double import form_file, http_double, live_double, result


@pytest.fixture
def service():
    with http_double() as double:
        yield double


@pytest.fixture
def client(service):
    with Client(service.url, timeout=10, retries=NO_RETRIES) as client:
        yield client


def classified(*results, warnings=()):
    return {
        "count": len(results),
        "results": [json.loads(r.model_dump_json(exclude_none=True)) for r in results],
        "warnings": list(warnings),
        "of_a_later_version": True,
    }


def test_classify_posts_a_file_with_its_name(service, client, tmp_path):
    wanted = [result(frame=0), result(frame=1)]
    service.respond("/v1/classify", classified(*wanted))
    path = tmp_path / "well B2.tif"
    path.write_bytes(b"II*\0 and so on")
    assert client.classify(path, cam="grid", axes="PCYX", channels=["SRS", "TPEF"]) == wanted
    ((method, target, headers, body),) = service.requests
    assert (method, target) == ("POST", "/v1/classify?cam=grid&axes=PCYX&channels=SRS%2CTPEF")
    assert form_file(headers, body) == ("well B2.tif", "image/tiff", b"II*\0 and so on")


@pytest.mark.parametrize(
    ("content", "media_type"),
    [(b"II*\0...", "image/tiff"), (b"\x93NUMPY...", "application/x-npy"), (b"?", "application/octet-stream")],
)
def test_classify_posts_bytes_with_their_media_type(service, client, content, media_type):
    service.respond("/v1/classify", classified(result()))
    client.classify(content)
    ((_, target, headers, body),) = service.requests
    assert (target, headers["Content-Type"], body) == ("/v1/classify?cam=none", media_type, content)


def test_classify_posts_an_array_as_npy(service, client):
    array = np.arange(24, dtype=np.uint16).reshape(3, 2, 4)[:, ::-1]
    service.respond("/v1/classify", classified(result()))
    client.classify(array)
    ((_, _, headers, body),) = service.requests
    assert headers["Content-Type"] == "application/x-npy"
    np.testing.assert_array_equal(np.load(io.BytesIO(body)), array)


def test_classify_issues_the_warnings_of_the_service(service, client):
    service.respond("/v1/classify", classified(result(), warnings=["channels by position"]))
    with pytest.warns(UserWarning, match="channels by position"):
        assert len(client.classify(b"x")) == 1
    assert client.classify_stack(b"x").warnings == ("channels by position",)


def test_model_and_stream_return_the_documents_of_the_service(service, client):
    service.respond("/v1/model", {"name": "starter"})
    service.respond("/v1/stream", {"receiver": {}})
    assert client.model() == {"name": "starter"}
    assert client.stream() == {"receiver": {}}


def test_a_status_of_another_form_is_an_error(service, client):
    service.respond("/v1/model", {"name": "starter"})
    service.respond("/v1/stream", {"receiver": {}})
    with pytest.raises(SenoscopeError, match="/v1/model returned JSON of another form"):
        client.model_info()
    with pytest.raises(SenoscopeError, match="/v1/stream returned JSON of another form"):
        client.stream_status()


def test_ready_returns_the_reason_if_the_service_is_not_ready(service, client):
    service.respond("/readyz", {"status": "ready"})
    assert client.ready().ready
    service.respond("/readyz", {"status": "not_ready", "reason": "warming up"}, status=503)
    state = client.ready()
    assert (state.ready, state.reason) == (False, "warming up")


@pytest.mark.parametrize("kind", [WrongFrameSize, Busy, NotReady, InvalidRequest])
def test_problem_documents_are_raised_as_errors_of_their_kind(service, client, kind):
    problem = kind("what is wrong").problem()
    service.respond("/v1/classify", problem.model_dump(), status=problem.status, Retry_After="7")
    with pytest.raises(kind, match="what is wrong") as caught:
        client.classify(b"x")
    if kind is Busy:
        assert caught.value.retry_after_s == 7


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"", b'{"detail": "?"}'])
def test_a_failed_response_without_problem_document_is_an_error(service, client, body):
    service.respond("/v1/model", body, status=502)
    with pytest.raises(SenoscopeError, match="502"):
        client.model()


def test_a_key_is_sent_with_every_request_and_an_invalid_key_is_rejected(service):
    service.respond("/v1/model", {"name": "starter"})
    with Client(service.url, api_key="senoscope_abc") as client:
        client.model()
    assert service.requests[0][2]["Authorization"] == "Bearer senoscope_abc"
    for bad in ("", "two words", "new\nline", "schl\u00fcssel"):
        with pytest.raises(ValueError, match="API key") as caught:
            Client(service.url, api_key=bad)
        assert not bad or bad not in str(caught.value)


@pytest.mark.parametrize(("status", "kind"), [(401, Unauthorized), (403, Forbidden), (503, Busy)])
def test_a_refused_live_stream_raises_the_error_of_the_service(service, status, kind):
    service.respond("/v1/live", kind("what is wrong").problem().model_dump(), status=status)
    with pytest.raises(kind, match="what is wrong"):
        LiveResults(service.url)


def test_an_html_page_is_not_a_service(service, client):
    service.respond("/v1/model", b"<html>")
    service.respond("/readyz", b"<html>")
    with pytest.raises(SenoscopeError, match="JSON"):
        client.model()
    with pytest.raises(SenoscopeError, match="not a Senoscope service"):
        client.ready()


def test_the_error_of_an_unreachable_service_contains_its_address(unused_url):
    with Client(unused_url) as client, pytest.raises(Unreachable, match=unused_url):
        client.ready()
    with pytest.raises(Unreachable, match="cannot be reached"):
        LiveResults(unused_url)


def test_an_address_must_be_an_http_address():
    with pytest.raises(ValueError, match="http"):
        Client("127.0.0.1:8750")


@pytest.fixture
def unused_url():
    with http_double() as double:
        pass
    return double.url


def test_live_results_end_when_the_service_stops():
    wanted = [result(frame=n) for n in range(3)]
    with (
        live_double([r.model_dump_json() for r in wanted], 1001, "stopping") as (url, paths),
        Client(url) as client,
        client.live(cam="png") as live,
    ):
        assert list(live) == wanted
        assert paths == ["/v1/live?cam=png"]


def test_live_results_time_out():
    with (
        live_double([result().model_dump_json()], code=0) as (url, _),
        LiveResults(url, timeout_s=0.05) as live,
    ):
        next(live)
        with pytest.raises(TimeoutError, match=r"0\.05 s"):
            next(live)


@pytest.mark.parametrize(
    ("messages", "code", "error"),
    [([], 1008, InvalidRequest), ([], 1011, Unreachable), (["{}"], 0, SenoscopeError)],
)
def test_live_results_raise_the_reason_of_a_lost_connection(messages, code, error):
    with (
        live_double(messages, code, "bad parameter") as (url, _),
        LiveResults(url) as live,
        pytest.raises(error),
    ):
        next(live)


def test_an_html_page_is_not_a_live_stream(service):
    service.respond("/v1/live", b"<html>")
    with pytest.raises(Unreachable, match="not a live stream"):
        LiveResults(service.url)
