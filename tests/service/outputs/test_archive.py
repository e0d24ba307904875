"""The archive: files that other software can read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
import tifffile

from senoscope_client.simulation.replay import Replay
from support import miniature as mini
from support.raw_microscope import NAMES, Microscope
from support.servers import start_server, start_server_process, stop_server


def _fov(n: int, dtype: str) -> np.ndarray:
    return mini.bright(level=250 + n if dtype == "uint8" else 900 + n).astype(dtype)


def scan(miniature: Path, folder: Path, frames: int, dtype: str = "uint16", stop=stop_server) -> Microscope:
    begin = start_server if stop is stop_server else start_server_process
    server = begin(miniature, folder / "log.txt", "--archive", str(folder / "archive"))
    scope = Microscope(server.frames)
    try:
        for n in range(frames):
            scope.send(scope.frame(n, _fov(n, dtype)))
            server.wait(lambda status, n=n: status["archive"]["written"] == n + 1)
        httpx.post(f"{server.url}/v1/classify", content=b"nothing of this is archived")
        stop(server)
    finally:
        scope.close()
        server.stop()
    return scope


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_series_becomes_one_ome_tiff(miniature: Path, tmp_path: Path, dtype: str) -> None:
    scope = scan(miniature, tmp_path, 3, dtype)
    (path,) = (tmp_path / "archive").iterdir()
    assert path.name == f"plate-3_{scope.uid}.ome.tif"
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        images = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
        assert len(images) == 3
        pixels = images[2]["Pixels"]
        assert [channel["Name"] for channel in pixels["Channel"]] == [*NAMES, "Grad-CAM"]
        assert (pixels["PhysicalSizeX"], pixels["Plane"][0]["PositionX"]) == (0.35, 200.0)
        assert images[2]["Name"].startswith("frame 2: ")
        stack = file.series[2].asarray()
    assert stack.shape == (4, 250, 300)
    assert stack.dtype == dtype
    assert (stack[:3] == _fov(2, dtype)).all()
    # Eight bits are too dark for the miniature ensemble to see anything in them.
    assert (stack[3].max() > 0) == (dtype != "uint8")
    again = list(Replay([path]))
    assert [(fov.position_um.x, fov.pixel_size_um) for fov in again] == [(n * 100.0, 0.35) for n in range(3)]
    assert all((fov.pixels == _fov(n, dtype)).all() for n, fov in enumerate(again))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGKILL")
def test_a_killed_service_leaves_pages_that_can_be_read(miniature: Path, tmp_path: Path) -> None:
    def kill(server) -> None:
        server.kill()

    scope = scan(miniature, tmp_path, 3, stop=kill)
    (path,) = (tmp_path / "archive").iterdir()
    assert path.name == f"plate-3_{scope.uid}.partial.ome.tif"
    with tifffile.TiffFile(path) as file:
        pages = [page.asarray() for page in file.pages]
    assert len(pages) >= 8  # the last FOV may have been on its way to the disk
    assert (np.stack(pages[:3]) == _fov(0, "uint16")).all()


@pytest.mark.parametrize(
    "name", ["a\ufffeb", "\uffff", "a\x00b", "\x1b[31m", "line\r\nend", "<b>&amp;", "\U0001f600"]
)
def test_the_metadata_of_a_series_of_any_name_is_valid_xml(
    miniature: Path, tmp_path: Path, name: str
) -> None:
    server = start_server(miniature, tmp_path / "log.txt", "--archive", str(tmp_path / "archive"))
    scope = Microscope(server.frames)
    try:
        scope.send(scope.frame(0, series_id=name))
        server.wait(lambda status: status["archive"]["written"] == 1)
    finally:
        scope.close()
        stop_server(server)
    (path,) = (tmp_path / "archive").iterdir()
    with tifffile.TiffFile(path) as file:
        image = ElementTree.fromstring(file.ome_metadata).find("{*}Image")
    assert json.loads(image.findtext("{*}Description"))["source"]["series_id"] == name
