"""A real napari on a screen that nobody sees, and a real service with a microscope."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumping import pump

# Qt's offscreen platform has no OpenGL, which napari draws with.
os.environ["QT_QPA_PLATFORM"] = "xcb"
os.environ["QT_API"] = "pyside6"


@pytest.fixture(scope="session")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An X server of its own."""
    program = shutil.which("Xvfb")
    assert program is not None, "the tests that use this carry the mark system(Xvfb)"
    read, write = os.pipe()
    options = ["-screen", "0", "1600x1000x24", "-nolisten", "tcp", "-displayfd", str(write)]
    with (tmp_path_factory.mktemp("screen") / "log.txt").open("wb") as log:
        server = subprocess.Popen([program, *options], pass_fds=[write], stdout=log, stderr=log)
    os.close(write)
    with os.fdopen(read) as told:
        os.environ["DISPLAY"] = f":{told.readline().strip()}"
    yield
    server.terminate()
    server.wait()


@pytest.fixture
def viewer(screen: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A napari viewer whose settings are nobody's."""
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "napari.yaml"))
    import napari

    viewer = napari.Viewer(show=True)
    yield viewer
    viewer.close()
    pump(lambda: True)
