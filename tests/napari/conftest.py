"""A real napari on a screen that nobody sees, and a real service with a microscope."""

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
def open_viewer(screen: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], object]]:
    """Gives one viewer to all tests of a module, because making one takes seconds; another once it is closed.

    Its settings are the defaults, and it is small, which takes less time to draw.
    """
    os.environ["NAPARI_CONFIG"] = str(tmp_path_factory.mktemp("napari") / "settings.yaml")
    import napari

    shared: napari.Viewer | None = None

    def get() -> napari.Viewer:
        nonlocal shared
        if shared not in napari.Viewer._instances:
            shared = napari.Viewer(show=True)
            shared.window.resize(800, 600)
            # napari collects garbage with each change of layers: what was imported is none.
            gc.freeze()
        return shared

    yield get
    napari.Viewer.close_all()
    gc.unfreeze()


@pytest.fixture
def viewer(open_viewer: Callable[[], object]) -> object:
    """The shared one, without layers."""
    viewer = open_viewer()
    viewer.layers.clear()
    return viewer
