"""The stage map, from tiles and on a real server."""

from __future__ import annotations

import uuid

import cv2
import httpx
import numpy as np
import pytest

from senoscope.outputs import stage_map as stagemap
from senoscope.outputs.stage_map import StageMaps, Tile, draw_map
from senoscope_client.wire.messages import Position
from support import miniature as mini
from support.raw_microscope import Microscope
from support.servers import Server

VIRIDIS = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)[:, 0]


def tile(x: float | None, y: float | None, probability: float = 0.5, size: float | None = 100.0) -> Tile:
    return Tile(uuid.uuid4(), 0, x, y, size, size, probability, 0.25, "control")


def image(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def colours(picture: np.ndarray, levels: list[int]) -> list[tuple[float, float]]:
    """Centre (x, y) of the pixels that have each level's colour, in the map itself."""
    field = picture[:-46]
    found = []
    for level in levels:
        y, x = np.nonzero((field == VIRIDIS[level]).all(axis=2))
        found.append((float(x.mean()), float(y.mean())))
    return found


def test_fovs_lie_where_the_stage_was() -> None:
    picture = image(draw_map([tile(0, 0, 0.0), tile(300, 0, 1.0), tile(0, 100, 0.4)], "probability"))
    left, right, below = colours(picture, [0, 255, 102])
    assert left[1] == pytest.approx(right[1], abs=1)
    assert left[0] == pytest.approx(below[0], abs=1)
    assert right[0] - left[0] == pytest.approx(3 * (below[1] - left[1]), abs=4)


def test_uncertainty_is_a_second_layer() -> None:
    tiles = [tile(0, 0)]
    assert draw_map(tiles, "uncertainty") != draw_map(tiles, "probability")


@pytest.mark.parametrize(
    "tiles",
    [
        [tile(5, 5)],
        [tile(None, None)],
        [tile(None, None), tile(None, None), tile(10, 20)],
        [tile(0, 0, size=None)],
        [tile(0, 0, size=None), tile(50, 0, size=None)],
        [tile(1e9, -1e9), tile(-1e9, 1e9)],
    ],
)
def test_any_places_make_a_picture_of_bounded_size(tiles: list[Tile]) -> None:
    picture = image(draw_map(tiles, "probability"))
    assert max(picture.shape) <= 1100


def test_a_place_scanned_again_shows_the_newest() -> None:
    maps, uid = StageMaps(), uuid.uuid4()
    for probability in (0.1, 0.9):
        maps.put(uid, tile(7, 7, probability))
    (only,) = maps.tiles(uid)
    assert only.probability == 0.9


def test_all_maps_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stagemap, "MAX_FOVS", 3)
    maps, (one, two) = StageMaps(), (uuid.uuid4(), uuid.uuid4())
    for n in range(2):
        maps.put(one, tile(n, 0))
    maps.put(two, tile(0, 0))
    maps.put(one, tile(2, 0))
    assert maps.tiles(two) is None, "it was put on least recently"
    for n in range(3, 5):
        maps.put(one, tile(n, 0))
    assert [known.x_um for known in maps.tiles(one)] == [2, 3, 4]


@pytest.mark.parametrize("layer", ["probability", "uncertainty"])
@pytest.mark.parametrize(
    "tiles",
    [
        [tile(1e308, 0), tile(-1e308, 0)],
        [tile(1e308, 0), tile(0, 0)],
        [tile(5, 5, size=1e-300)],
        [tile(5, 5, size=1e300)],
        [tile(1e6, 1e6, size=1e-13)],
        [tile(0, 0, size=None), tile(5e-324, 0, size=None)],
        [tile(0, 0, size=None), tile(1e-7, 0, size=None)],
        [tile(None, None, size=None)],
        [tile(0, 0, size=5e-324), tile(None, None)],
    ],
)
def test_every_place_and_size_can_be_drawn(tiles: list[Tile], layer: stagemap.Layer) -> None:
    picture = image(draw_map(tiles, layer))
    assert max(picture.shape[:2]) < 2000


def test_a_place_out_of_reach_does_not_hide_the_others() -> None:
    scan = [tile(100.0 * n, 0, 0.4) for n in range(5)]
    picture = image(draw_map([*scan, tile(1e12, 0, 1.0)], "probability"))
    shown = (picture[:-46] == VIRIDIS[102]).all(axis=2)
    assert shown.sum() > 0.2 * shown.size / 2, "the scan fills the map's upper half"


def test_the_map_fills_as_results_come(server: Server) -> None:
    scope = Microscope(server.frames)
    url = f"{server.url}/v1/series/{scope.uid}/map"
    try:
        assert httpx.get(f"{url}.json").status_code == 404
        pictures = []
        for n in range(3):
            place = Position(x=100.0 * (n % 2), y=90.0 * (n // 2), z=0.0)
            scope.send(scope.frame(n, mini.bright() if n else mini.dark(), position_um=place))
            server.wait(lambda _, n=n: len(httpx.get(f"{url}.json").json().get("fovs", ())) == n + 1)
            pictures.append(httpx.get(f"{url}.png").content)
    finally:
        scope.close()
    assert len(set(pictures)) == 3
    fovs = httpx.get(f"{url}.json").json()["fovs"]
    assert [fov["label"] for fov in fovs] == ["control", "senescent", "senescent"]
    assert fovs[2]["position_um"] == {"x": 0.0, "y": 90.0}
    assert fovs[0]["size_um"] == {"x": pytest.approx(105.0), "y": pytest.approx(87.5)}
    assert httpx.get(f"{url}.png", params={"layer": "uncertainty"}).content not in pictures
    assert httpx.get(f"{url}.png", params={"layer": "else"}).status_code == 422


def test_a_pixel_size_beyond_all_numbers_is_none(server: Server) -> None:
    scope = Microscope(server.frames)
    try:
        scope.send(scope.frame(0, pixel_size_um=1e306))
        url = f"{server.url}/v1/series/{scope.uid}/map"
        server.wait(lambda _: httpx.get(f"{url}.json").status_code == 200)
        assert httpx.get(f"{url}.json").json()["fovs"][0]["size_um"] is None
        assert httpx.get(f"{url}.png").status_code == 200
    finally:
        scope.close()
