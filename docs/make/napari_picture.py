"""Make the picture of the napari plugin, from a service that is running.

::

    senoscope demo --no-browser &
    python docs/make/napari_picture.py http://127.0.0.1:8750 24

Opens napari with the plugin, waits until so many fields of view are on the stage map, and writes
``docs/images/napari.png``. Where there is no screen: ``xvfb-run -s '-screen 0 1600x1000x24' python ...``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import imageio.v3 as imageio
import napari
from qtpy.QtWidgets import QApplication

IMAGES = Path(__file__).parents[1] / "images"
SIZE = (1380, 860)
PATIENCE_S = 300


def pump(seconds: float) -> None:
    """Let Qt work for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        QApplication.processEvents()
        time.sleep(0.01)


def main(url: str, wanted: int) -> None:
    """Watch until the map is filled, then show the surest senescent field of view of its middle."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    _, widget = viewer.window.add_plugin_dock_widget("senoscope", "Senoscope live")
    widget.connect_to(url)
    deadline = time.monotonic() + PATIENCE_S
    while len(widget.stage) < wanted:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(widget.stage)} of {wanted} fields of view came")
        pump(0.1)
    stage = viewer.layers["Stage map"]
    told = stage.features
    stage.selected_data = {told["probability"].iloc[wanted // 3 : 2 * wanted // 3].idxmax()}  # a click on it
    pump(2)
    viewer.scene.camera.zoom *= 0.45
    viewer.layers.selection = {viewer.layers["Grad-CAM"]}
    viewer.canvas.overlays.scale_bar.visible = True
    pump(2.5)  # for the next word on the stream
    imageio.imwrite(IMAGES / "napari.png", viewer.screenshot(canvas_only=False, flash=False)[..., :3])
    viewer.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
