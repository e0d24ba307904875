"""Access control of a real server: keys, scopes, pages of other sites."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from senoscope.access.api_keys import Scope, add_key, revoke_key
from senoscope.api.middleware.guard import scope_needed
from senoscope_client.errors import Forbidden, Unauthorized
from senoscope_client.http.client import Client
from senoscope_client.http.live import LiveResults
from support import miniature as mini
from support.commands import CompletedCommand, run_command
from support.image_bytes import npy
from support.servers import Server, start_server, stop_server
from support.web_pages import PAGES

MASTER = "master-key-of-more-than-32-characters"


@dataclass
class Keyed:
    """A server that requires keys, and a key of each scope."""

    server: Server
    read: str
    classify: str
    admin: str

    @property
    def url(self) -> str:
        return self.server.url

    def refused(self) -> dict[str, int]:
        return httpx.get(f"{self.url}/v1/stream", headers=bearer(self.admin)).json()["requests_refused"]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def keyed(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("keyed")
    file = folder / "keys.json"
    texts = [add_key(file, scope, (scope,)) for scope in ("read", "classify", "admin")]
    os.environ["SENOSCOPE_API_KEY"] = MASTER
    try:
        server = start_server(miniature, folder / "log.txt", "--api-keys", str(file))
    finally:
        del os.environ["SENOSCOPE_API_KEY"]
    yield Keyed(server, *texts)
    stop_server(server)
    log = server.log.read_text()
    assert "request refused" in log
    for text in (*texts, MASTER, "wrong-key"):
        assert text not in log, "no key is ever logged"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/livez", None),
        ("HEAD", "/readyz", None),
        ("POST", "/readyz", "admin"),
        ("GET", "/livez/", "read"),
        ("GET", "/v2/health/live", None),
        ("GET", "/v2/health/ready", None),
        ("GET", "/metrics", "read"),
        ("GET", "/", None),
        ("GET", "/dashboard/main.js", None),
        ("GET", "/dashboard/", "read"),
        ("GET", "/dashboard/../v1/results", "read"),
        ("POST", "/", "admin"),
        ("WEBSOCKET", "/v1/live", "read"),
        ("POST", "/v1/classify", "classify"),
        ("POST", "/v1/classify/", "admin"),
        ("POST", "/v1/model", "admin"),
        ("PUT", "/v1/classify", "admin"),
        ("DELETE", "/v1/results/1", "admin"),
        ("OPTIONS", "/v1/classify", "admin"),
        ("GET", "/v2/models/starter", "read"),
        ("POST", "/v2/repository/index", "read"),
        ("POST", "/v2/models/starter/infer", "classify"),
        ("POST", "/v2/models/starter/versions/1/infer", "classify"),
        ("POST", "/v2/repository/models/starter/load", "admin"),
        ("POST", "/v2/models/starter/infer/more", "admin"),
    ],
)
def test_the_scope_of_each_request(method: str, path: str, scope: str | None) -> None:
    assert scope_needed(method, path) == scope


def test_pages_without_a_key_hold_no_data(keyed: Keyed) -> None:
    assert httpx.get(f"{keyed.url}/livez").json() == {"status": "alive"}
    assert httpx.get(f"{keyed.url}/readyz").json() == {"status": "ready"}
    page = httpx.get(f"{keyed.url}/")
    assert page.status_code == 200
    assert page.text == httpx.get(f"{keyed.url}/", headers=bearer(keyed.admin)).text


@pytest.mark.parametrize("path", ["/v1/results", "/v1/model", "/v1/stream", "/v1/nowhere", "/openapi.json"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong-key"),
        {"Authorization": "Bearer"},
        {"Authorization": "Basic d3Jvbmcta2V5"},
        {"X-API-Key": MASTER},
    ],
)
def test_requests_without_a_valid_key_are_refused(keyed: Keyed, path: str, headers: dict) -> None:
    answer = httpx.get(keyed.url + path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "wrong-key" not in answer.text
    assert "miniature" not in answer.text


def test_two_keys_are_refused(keyed: Keyed) -> None:
    twice = [("Authorization", f"Bearer {keyed.admin}"), ("Authorization", f"Bearer {keyed.read}")]
    assert httpx.get(f"{keyed.url}/v1/model", headers=twice).status_code == 401


def test_scopes(keyed: Keyed) -> None:
    def get(key: str) -> int:
        return httpx.get(f"{keyed.url}/v1/model", headers=bearer(key)).status_code

    def post(key: str) -> httpx.Response:
        return httpx.post(f"{keyed.url}/v1/classify", content=npy(mini.bright()), headers=bearer(key))

    def change(key: str) -> int:
        return httpx.delete(f"{keyed.url}/v1/model", headers=bearer(key)).status_code

    assert [get(key) for key in (keyed.read, keyed.classify, keyed.admin, MASTER)] == [200, 403, 200, 200]
    answers = [post(key) for key in (keyed.read, keyed.classify, keyed.admin, MASTER)]
    assert [answer.status_code for answer in answers] == [403, 200, 200, 200]
    assert answers[0].json()["code"] == "forbidden"
    assert "needs classify" in answers[0].json()["detail"]
    assert [change(key) for key in (keyed.read, keyed.classify)] == [403, 403]
    assert change(keyed.admin) == 405, "permitted, although there is nothing to delete"


def test_a_refused_upload_is_answered_without_being_read(keyed: Keyed) -> None:
    answer = httpx.post(f"{keyed.url}/v1/classify", content=bytes(50 << 20), timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_websockets_are_refused_before_they_open(keyed: Keyed) -> None:
    for headers, status in (({}, 401), (bearer("wrong-key"), 401), (bearer(keyed.classify), 403)):
        with pytest.raises(InvalidStatus) as refused:
            connect(keyed.server.ws, additional_headers=headers)
        response = refused.value.response
        assert response.status_code == status
        assert json.loads(response.body)["status"] == status


def test_a_websocket_opens_with_a_key_in_a_header_or_a_subprotocol(keyed: Keyed) -> None:
    ways = [
        {"additional_headers": bearer(keyed.read)},
        {"subprotocols": ["senoscope", f"bearer.{keyed.read}"]},
    ]
    for way in ways:
        with connect(keyed.server.ws, **way) as connection:
            assert connection.subprotocol == ("senoscope" if "subprotocols" in way else None)
            httpx.post(f"{keyed.url}/v1/classify", content=npy(mini.bright()), headers=bearer(keyed.classify))
            assert json.loads(connection.recv(timeout=30))["label"] == "senescent"
    with pytest.raises(InvalidStatus) as refused:
        connect(keyed.server.ws, subprotocols=["senoscope", "bearer.wrong-key"])
    assert refused.value.response.status_code == 401


def test_refusals_are_counted_by_reason(keyed: Keyed) -> None:
    before = keyed.refused()
    httpx.get(f"{keyed.url}/v1/model")
    httpx.get(f"{keyed.url}/v1/model", headers=bearer("wrong-key"))
    httpx.get(f"{keyed.url}/v1/model", headers=bearer("wrong-key"))
    httpx.delete(f"{keyed.url}/v1/model", headers=bearer(keyed.read))
    with pytest.raises(InvalidStatus):
        connect(keyed.server.ws)
    after = keyed.refused()
    grown = {reason: after[reason] - before.get(reason, 0) for reason in after}
    assert grown == {"no_key": 2, "wrong_key": 2, "missing_scope": 1}
    logged = keyed.server.log.read_text().count("request refused")
    assert logged < sum(after.values()), "most refusals are not logged"


def test_the_python_client_sends_its_key_and_understands_refusals(keyed: Keyed) -> None:
    with Client(keyed.url, api_key=keyed.admin) as client, client.live(timeout_s=30) as live:
        (result,) = client.classify(mini.bright())
        assert next(live).id == result.id
    with Client(keyed.url) as client:
        assert client.ready().ready
        with pytest.raises(Unauthorized, match="SENOSCOPE_API_KEY"):
            client.classify(mini.bright())
        with pytest.raises(Unauthorized):
            client.live()
    with Client(keyed.url, api_key=keyed.classify) as client:
        with pytest.raises(Forbidden, match="needs read"):
            client.model()
        with pytest.raises(Forbidden, match="needs read"):
            LiveResults(keyed.url, api_key=keyed.classify)


def test_the_command_line_client_takes_its_key_from_option_or_variable(keyed: Keyed, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", mini.bright())

    def run(*options: str, **environment: str) -> CompletedCommand:
        return run_command("senoscope-client", *options, "--url", keyed.url, **environment)

    classify = ("classify", str(tmp_path / "a.npy"), "--csv")
    assert "senescent" in run(*classify, "--api-key", keyed.classify).stdout
    assert "senescent" in run(*classify, SENOSCOPE_API_KEY=keyed.classify).stdout
    for options in (classify, ("watch", "--count", "1")):
        refused = run(*options)
        assert refused.returncode == 1
        assert "requires an API key" in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("left", [(), ("classify",)], ids=["revoked", "narrowed"])
def test_a_websocket_closes_when_its_key_is_revoked(
    miniature: Path, tmp_path: Path, left: tuple[Scope, ...]
) -> None:
    file = tmp_path / "keys.json"
    read, other = add_key(file, "gone", ("read",)), add_key(file, "other", ("classify", "read"))
    server = start_server(miniature, tmp_path / "log.txt", "--api-keys", str(file))
    try:
        with (
            LiveResults(server.url, api_key=read, timeout_s=30) as gone,
            LiveResults(server.url, api_key=other, timeout_s=30) as stays,
        ):

            def classify() -> str:
                answer = httpx.post(
                    f"{server.url}/v1/classify", content=npy(mini.bright()), headers=bearer(other)
                )
                return answer.json()["results"][0]["id"]

            first = classify()
            assert (str(next(gone).id), str(next(stays).id)) == (first, first)
            if left:
                keys = json.loads(file.read_text())
                keys["keys"][0]["scopes"] = left
                file.write_text(json.dumps(keys))
            else:
                revoke_key(file, "gone")
            second = classify()
            assert str(next(stays).id) == second
            with pytest.raises(Forbidden if left else Unauthorized, match="read" if left else "revoked"):
                next(gone)
        facts = httpx.get(f"{server.url}/v1/stream", headers=bearer(other)).json()
        assert facts["requests_refused"]["missing_scope" if left else "wrong_key"] == 1
        assert "Traceback" not in server.log.read_text()
    finally:
        stop_server(server)


def test_a_revoked_key_is_refused_from_the_next_request_on(miniature: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "gone", ("read",))
    server = start_server(miniature, tmp_path / "log.txt", "--api-keys", str(file))
    try:
        assert httpx.get(f"{server.url}/v1/model", headers=bearer(key)).status_code == 200
        assert run_command("senoscope", "keys", "revoke", "gone", "--api-keys", file).returncode == 0
        assert httpx.get(f"{server.url}/v1/model", headers=bearer(key)).status_code == 401
    finally:
        stop_server(server)


@pytest.mark.parametrize(("headers", "status"), PAGES)
def test_without_keys_the_pages_of_other_sites_are_refused(
    server: Server, headers: dict, status: int
) -> None:
    assert httpx.get(f"{server.url}/v1/model", headers=headers).status_code == status


def test_without_keys_other_sites_cannot_open_a_websocket(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(server.ws, origin="http://evil.example")
    assert refused.value.response.status_code == 403
    with connect(server.ws, origin=server.url, subprotocols=["senoscope"]) as connection:
        assert connection.subprotocol == "senoscope"
