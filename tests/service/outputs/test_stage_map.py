"""The stage map, from tiles and on a real server."""

from __future__ import annotations

import uuid

import httpx
import pytest

from senoscope.outputs import stage_map as stagemap
from senoscope.outputs.stage_map import StageMaps, Tile
from senoscope_client.wire.messages import Position
from support import miniature as mini
from support.raw_microscope import Microscope
from support.servers import Server


def tile(x: float | None, y: float | None, probability: float = 0.5, size: float | None = 100.0) -> Tile:
    return Tile(uuid.uuid4(), 0, x, y, size, size, probability, 0.25, "control")


def test_a_place_scanned_again_has_the_newest_tile() -> None:
    maps, uid = StageMaps(), uuid.uuid4()
    for probability in (0.1, 0.9):
        maps.add_tile(uid, tile(7, 7, probability))
    (only,) = maps.tiles(uid)
    assert only.probability == 0.9


def test_all_maps_together_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stagemap, "MAX_FOVS", 3)
    maps, (one, two) = StageMaps(), (uuid.uuid4(), uuid.uuid4())
    for n in range(2):
        maps.add_tile(one, tile(n, 0))
    maps.add_tile(two, tile(0, 0))
    maps.add_tile(one, tile(2, 0))
    assert maps.tiles(two) is None, "it was put on least recently"
    for n in range(3, 5):
        maps.add_tile(one, tile(n, 0))
    assert [known.x_um for known in maps.tiles(one)] == [2, 3, 4]


def test_the_map_has_each_new_result(server: Server) -> None:
    scope = Microscope(server.frames)
    url = f"{server.url}/v1/series/{scope.uid}/map"
    try:
        assert httpx.get(f"{url}.json").status_code == 404
        for n in range(3):
            place = Position(x=100.0 * (n % 2), y=90.0 * (n // 2), z=0.0)
            scope.send(scope.frame(n, mini.bright() if n else mini.dark(), position_um=place))
            server.wait(lambda _, n=n: len(httpx.get(f"{url}.json").json().get("fovs", ())) == n + 1)
    finally:
        scope.close()
    fovs = httpx.get(f"{url}.json").json()["fovs"]
    assert [fov["label"] for fov in fovs] == ["control", "senescent", "senescent"]
    assert fovs[2]["position_um"] == {"x": 0.0, "y": 90.0}
    assert fovs[0]["size_um"] == {"x": pytest.approx(105.0), "y": pytest.approx(87.5)}


def test_a_size_that_is_infinite_is_omitted(server: Server) -> None:
    scope = Microscope(server.frames)
    try:
        scope.send(scope.frame(0, pixel_size_um=1e306))
        url = f"{server.url}/v1/series/{scope.uid}/map"
        server.wait(lambda _: httpx.get(f"{url}.json").status_code == 200)
        assert httpx.get(f"{url}.json").json()["fovs"][0]["size_um"] is None
    finally:
        scope.close()
