"""The run log over HTTP, on a real server that keeps the pixels of only one field of view."""

from __future__ import annotations

import csv
import io
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from senoscope_client import Client, FramePublisher, Position
from senoscope_client.errors import InvalidRequest, LogUnavailable, NotFound
from senoscope_client.models.result import Result
from support import miniature as mini
from support.run_logs import wait_for
from support.servers import Server, start_server, start_server_process, stop_server


@pytest.fixture(scope="module")
def server(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start_server(
        miniature, tmp_path_factory.mktemp("server") / "log.txt", "--remember-mib", "1", "--live-queue", "100"
    )
    yield running
    stop_server(running)


@pytest.fixture(scope="module")
def other(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A separate server for tests that add results."""
    running = start_server(miniature, tmp_path_factory.mktemp("server") / "log.txt", "--remember-mib", "1")
    yield running
    stop_server(running)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def posted(client: Client) -> list[Result]:
    """Ten results of a posted stack, with their maps; most of their pixels are no longer kept."""
    stack = np.stack([mini.bright() if n % 2 else mini.dark() for n in range(10)])
    return client.classify(stack, cam="grid")


@pytest.fixture(scope="module")
def streamed(server: Server, client: Client, posted: list[Result]) -> uuid.UUID:
    """A series of six frames, one of which is missing."""
    with FramePublisher(server.frames, "nlo-7") as publisher:
        assert publisher.wait_for_subscriber(60)
        publisher.start_series("plate 1", planned_frames=6)
        for n in range(6):
            publisher.publish(mini.bright() if n < 4 else mini.dark(), Position(x=n, y=0, z=0))
        publisher.end_series()
        (seen,) = server.wait(
            lambda s: s["receiver"]["series"] and s["receiver"]["series"][0]["state"] == "ended"
        )["receiver"]["series"]
    server.wait(lambda s: s["live"]["classified"] == 6)
    uid = uuid.UUID(seen["series_uid"])
    wait_for(lambda: len(client.results(series=uid).results) == 6)
    return uid


def get(server: Server, path: str, **parameters) -> httpx.Response:
    return httpx.get(f"{server.url}{path}", params=parameters)


def test_every_answered_result_is_in_the_log(
    client: Client, posted: list[Result], streamed: uuid.UUID
) -> None:
    logged = {one.id: one for one in client.all_results()}
    for one in posted:
        assert logged[one.id] == one.model_copy(
            update={"gradcam": one.gradcam.model_copy(update={"grids": None})}
        )
        assert client.result(one.id) == logged[one.id]
    assert len(logged) == 16


def test_pages_link_to_the_next(server: Server, client: Client, streamed: uuid.UUID) -> None:
    page = client.results(limit=4)
    assert [one.source.frame for one in page.results] == [5, 4, 3, 2]
    answer = get(server, "/v1/results", limit=10, kind="upload")
    assert answer.json().keys() == {"results"}, "the last page has no cursor"
    answer = get(server, "/v1/results", limit=9, kind="upload")
    following = httpx.get(server.url + answer.links["next"]["url"])
    assert [one["source"]["frame"] for one in following.json()["results"]] == [0]


def test_filters(client: Client, posted: list[Result], streamed: uuid.UUID) -> None:
    def count(**filters) -> int:
        return len(list(client.all_results(**filters)))

    assert count(series=streamed) == 6
    assert count(series=streamed, label="senescent") == 4
    assert count(kind="upload", label="control") == 5
    assert count(min_probability=0.5) == 9
    assert count(max_probability=0.5) == 7
    now = datetime.now(UTC)
    assert count(until=now + timedelta(minutes=1), since=now - timedelta(hours=1)) == 16
    assert count(since=now + timedelta(minutes=1)) == 0
    assert count(until=now - timedelta(hours=1)) == 0


def test_times_without_a_zone_are_utc(server: Server, posted: list[Result]) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=5)).replace(tzinfo=None).isoformat()
    assert get(server, "/v1/results", **{"from": soon}).json()["results"] == []
    assert get(server, "/v1/results", to=soon).json()["results"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": 0},
        {"limit": 1001},
        {"cursor": "x"},
        {"cursor": 0},
        {"cursor": 10**30},
        {"series": "plate 1"},
        {"kind": "other"},
        {"label": "\0"},
        {"from": "yesterday"},
        {"to": "9" * 30},
        {"min_probability": 2},
        {"max_probability": "nan"},
        {"since": "2026-01-01"},
    ],
)
def test_bad_parameters_are_named(server: Server, parameters: dict) -> None:
    answer = get(server, "/v1/results", **parameters)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert next(iter(parameters)) in answer.json()["detail"]


def test_csv(server: Server, streamed: uuid.UUID) -> None:
    answer = httpx.get(
        f"{server.url}/v1/results",
        params={"series": str(streamed), "limit": 5},
        headers={"Accept": "text/csv"},
    )
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["frame"], row["x_um"]) for row in rows] == [(str(n), f"{n}.0") for n in (5, 4, 3, 2, 1)]
    assert "cursor=" in answer.links["next"]["url"]


def test_export(client: Client, streamed: uuid.UUID, tmp_path: Path) -> None:
    client.export(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 16
    client.export(tmp_path / "some.parquet", "parquet", series=streamed, label="senescent")
    table = pq.read_table(tmp_path / "some.parquet")
    assert sorted(table.column("frame").to_pylist()) == [0, 1, 2, 3]
    with pytest.raises(InvalidRequest):
        client.export(tmp_path / "none.xls", "xls")
    assert not (tmp_path / "none.xls").exists()


def test_an_unknown_result_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound, match="the id is wrong"):
        client.result(uuid.uuid4())


def test_a_current_series(client: Client, streamed: uuid.UUID) -> None:
    (one,) = client.series()
    assert (one.series_uid, one.series_id, one.instrument) == (streamed, "plate 1", "nlo-7")
    assert (one.state, one.live, one.received, one.missing) == ("ended", True, 6, 0)
    assert one.labels == {"senescent": 4, "control": 2}
    assert client.one_series(streamed).labels == one.labels
    with pytest.raises(NotFound, match="/v1/series"):
        client.one_series(uuid.uuid4())


def test_logged_maps_equal_those_of_the_answer(
    client: Client, posted: list[Result], streamed: uuid.UUID
) -> None:
    for one in posted:
        assert client.result(one.id, cam="grid") == one
    assert client.result(posted[1].id, cam="png").gradcam.png


def test_without_pixels_maps_are_drawn_and_overlays_are_not(other: Server) -> None:
    server, client = other, Client(other.url)
    stack = np.stack([mini.bright()])
    (fresh,) = client.classify(stack)
    path = f"/v1/results/{fresh.id}/gradcam.png"
    remembered = {
        parameters: get(server, path, **dict(parameters))
        for parameters in ((), (("network", "resnet50"),), (("style", "overlay"),))
    }
    assert all(answer.status_code == 200 for answer in remembered.values())
    client.classify(np.stack([mini.dark()] * 4))
    for parameters, answer in remembered.items():
        again = get(server, path, **dict(parameters))
        if ("style", "overlay") not in parameters:
            assert cv2.imdecode(np.frombuffer(again.content, np.uint8), cv2.IMREAD_COLOR).shape == (
                250,
                300,
                3,
            )
            assert again.content == answer.content
        else:
            assert (again.status_code, again.json()["code"]) == (404, "not_found")
            assert "pixels" in again.json()["detail"]
            assert "style=map" in again.json()["detail"]


def test_pixels_are_available_while_they_are_kept(other: Server) -> None:
    server, client = other, Client(other.url)
    fov = np.random.default_rng(4).integers(0, 4096, (3, 250, 300), np.uint16)
    (one,) = client.classify(fov)
    pixels = client.pixels(one.id)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, fov)
    answer = get(server, f"/v1/results/{one.id}/pixels.npy")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-npy")
    assert "immutable" in answer.headers["cache-control"]
    client.classify(np.stack([mini.dark()] * 4))
    with pytest.raises(NotFound, match="--remember-mib"):
        client.pixels(one.id)
    with pytest.raises(NotFound, match="the id is wrong"):
        client.pixels(uuid.uuid4())
    answer = get(server, f"/v1/results/{one.id}/pixels.npy")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_series_and_results_persist_across_restarts(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt")
    with FramePublisher(server.frames, "nlo-7") as publisher, Client(server.url) as client:
        assert publisher.wait_for_subscriber(60)
        publisher.start_series("plate 2")
        publisher.publish(mini.bright(), Position(x=0, y=0, z=0))
        wait_for(lambda: client.results().results)
        stop_server(server)
    again = start_server(miniature, tmp_path / "log.txt")
    try:
        with Client(again.url) as client:
            (one,) = client.series()
            assert (one.live, one.state, one.received) == (False, "interrupted", 1)
            assert one.labels == {"senescent": 1}
            assert abs(one.updated_at.timestamp() - time.time()) < 600
            (found,) = client.results(series=one.series_uid).results
            assert client.one_series(one.series_uid) == one
            picture = httpx.get(again.url + found.gradcam.href)
            assert picture.headers["content-type"] == "image/png"
            assert client.stream()["run_log"]["state"] == "ok"
    finally:
        stop_server(again)


def test_without_a_log(miniature: Path, tmp_path: Path) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--database-url", "none")
    try:
        with Client(server.url) as client:
            (one,) = client.classify(np.stack([mini.bright()]))
            assert client.result(one.id).id == one.id
            assert "not_logged" not in {flag.code for flag in one.flags}
            with pytest.raises(LogUnavailable, match="turned off"):
                client.results()
            with pytest.raises(LogUnavailable, match="turned off"):
                client.export(tmp_path / "all.csv")
            with pytest.raises(NotFound, match="turned off"):
                client.result(uuid.uuid4())
            assert client.series() == []
            assert client.stream()["run_log"] is None
    finally:
        stop_server(server)


def test_while_the_log_fails_every_result_is_sent_with_a_flag(miniature: Path, tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite3"
    path.write_bytes(b"no database at all" * 1000)
    server = start_server(miniature, tmp_path / "log.txt")
    try:
        with Client(server.url) as client:
            assert client.ready().ready
            (one,) = client.classify(np.stack([mini.bright()]))
            assert "not_logged" in {flag.code for flag in one.flags}
            assert client.result(one.id) == one
            with pytest.raises(LogUnavailable, match="is damaged"):
                client.results()
            with pytest.raises(LogUnavailable, match="is damaged"):
                client.result(uuid.uuid4())
            status = client.stream()["run_log"]
            assert (status["state"], status["waiting"]) == ("corrupt", 1)
            assert str(path) in status["problem"]
            path.rename(tmp_path / "damaged")
            wait_for(lambda: client.stream()["run_log"]["state"] == "ok")
            (logged,) = client.results().results
            assert logged.id == one.id
            (fine,) = client.classify(np.stack([mini.bright()]))
            assert "not_logged" not in {flag.code for flag in fine.flags}
    finally:
        stop_server(server)


@pytest.mark.parametrize("address", ["mysql://host/log", "runlog.sqlite3"])
def test_an_invalid_url_is_reported_at_the_start(miniature: Path, tmp_path: Path, address: str) -> None:
    server = start_server_process(miniature, tmp_path / "log.txt", "--database-url", address, wait=False)
    assert server.process.wait(60) == 2
    assert "--database-url" in server.log.read_text()
