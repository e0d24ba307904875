"""A real napari on a screen that nobody sees, and a real service with a microscope."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

# Qt's offscreen platform has no OpenGL, which napari draws with.
os.environ["QT_QPA_PLATFORM"] = "xcb"
os.environ["QT_API"] = "pyqt6"


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


@pytest.fixture(scope="module")
def new_viewer(screen: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], object]]:
    """Makes napari viewers whose settings are nobody's; small ones, which take less time to draw."""
    os.environ["NAPARI_CONFIG"] = str(tmp_path_factory.mktemp("napari") / "settings.yaml")
    import napari

    def make() -> napari.Viewer:
        viewer = napari.Viewer(show=True)
        viewer.window.resize(800, 600)
        return viewer

    yield make
    napari.Viewer.close_all()


@pytest.fixture(scope="module")
def shared_viewer(new_viewer: Callable[[], object]) -> object:
    """One for all tests of a module, because making one takes seconds."""
    return new_viewer()


@pytest.fixture
def viewer(shared_viewer: object) -> object:
    """The shared one, without layers."""
    shared_viewer.layers.clear()
    return shared_viewer
