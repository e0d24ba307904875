"""Fixtures for tests with a real napari on a virtual screen."""

from __future__ import annotations

import gc
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
    """Start an X server for the tests."""
    program = shutil.which("Xvfb")
    assert program is not None, "tests that use this fixture have the mark system(Xvfb)"
    read, write = os.pipe()
    options = ["-screen", "0", "1600x1000x24", "-nolisten", "tcp", "-displayfd", str(write)]
    with (tmp_path_factory.mktemp("screen") / "log.txt").open("wb") as log:
        server = subprocess.Popen([program, *options], pass_fds=[write], stdout=log, stderr=log)
    os.close(write)
    with os.fdopen(read) as pipe:
        os.environ["DISPLAY"] = f":{pipe.readline().strip()}"
    yield
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def open_viewer(screen: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], object]]:
    """Return a function that returns the viewer of the module, or a new one if it was closed.

    The viewer is shared, because creating one takes seconds. It has default settings, and is small, so that
    drawing takes less time.
    """
    os.environ["NAPARI_CONFIG"] = str(tmp_path_factory.mktemp("napari") / "settings.yaml")
    import napari

    shared: napari.Viewer | None = None

    def get() -> napari.Viewer:
        nonlocal shared
        if shared not in napari.Viewer._instances:
            shared = napari.Viewer(show=True)
            shared.window.resize(800, 600)
            # napari collects garbage with each change of layers: imported objects are excluded.
            gc.freeze()
        return shared

    yield get
    napari.Viewer.close_all()
    gc.unfreeze()


@pytest.fixture
def viewer(open_viewer: Callable[[], object]) -> object:
    """Return the shared viewer, without layers."""
    viewer = open_viewer()
    viewer.layers.clear()
    return viewer
