"""Maps and colours that the page computes are the same as in the service's pictures."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page

from senoscope.engine.gradcam import ensemble_map, network_map

pytestmark = pytest.mark.system("chromium")


def test_maps_are_the_same_as_the_engines(scripts: Page) -> None:
    rng = np.random.default_rng(5)
    grids = {"a": rng.random((6, 8)), "b": rng.random((8, 10)), "zero": np.zeros((7, 9))}
    networks = {"a": 0.9, "b": 0.25, "zero": 0.5}
    result = {
        "networks": networks,
        "gradcam": {"grids": {name: grid.tolist() for name, grid in grids.items()}},
    }
    single, ensemble = scripts.evaluate(
        """async (result) => {
            const { networkMap, ensembleMap } = await import("./gradcam.js");
            return [[...networkMap(result.gradcam.grids.a, 250, 300)], [...ensembleMap(result, 250, 300)]];
        }""",
        result,
    )
    arrays = [grid.astype(np.float32) for grid in grids.values()]
    expected = ensemble_map(arrays, np.array([*networks.values()]), 250, 300)
    np.testing.assert_allclose(np.reshape(single, (250, 300)), network_map(arrays[0], 250, 300), atol=2e-6)
    np.testing.assert_allclose(np.reshape(ensemble, (250, 300)), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "colour_map"), [("viridis", cv2.COLORMAP_VIRIDIS), ("inferno", cv2.COLORMAP_INFERNO)]
)
def test_colours_are_the_same_as_in_the_services_pictures(scripts: Page, name: str, colour_map: int) -> None:
    there = scripts.evaluate("async (name) => [...(await import('./colormaps.js'))[name]]", name)
    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], colour_map)[:, 0]
    np.testing.assert_array_equal(np.reshape(there, (256, 3)), bgr[:, ::-1])


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<f4"])
def test_pixels_are_read_as_they_are_written(scripts: Page, dtype: str) -> None:
    pixels = np.random.default_rng(6).integers(0, 200, (3, 250, 300)).astype(dtype)
    buffer = io.BytesIO()
    np.save(buffer, pixels)
    read = scripts.evaluate(
        """async (bytes) => {
            const { parse } = await import("./pixels.js");
            const { buffer } = Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0));
            const { channels, height, width } = parse(buffer);
            return [height, width, ...channels.map((c) => [c[0], c[301], c.reduce((a, b) => a + b, 0)])];
        }""",
        base64.b64encode(buffer.getvalue()).decode(),
    )
    flat = pixels.reshape(3, -1).astype(float)
    assert read == [250, 300, *([c[0], c[301], c.sum()] for c in flat)]
