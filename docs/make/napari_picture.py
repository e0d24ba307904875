"""Make the picture of the napari plugin with a running service.

::

    senoscope demo --no-browser &
    python docs/make/napari_picture.py http://127.0.0.1:8750 24

Opens napari with the plugin, waits until that many fields of view are on the stage map, and writes
``docs/images/napari.png``. Without a screen: ``xvfb-run -s '-screen 0 1600x1000x24' python ...``.
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
    """Process events of Qt for some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        QApplication.processEvents()
        time.sleep(0.01)


def main(url: str, wanted: int) -> None:
    """Wait until the map is filled, then show the most probable senescent field of view of its middle."""
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
    features = stage.features
    stage.selected_data = {
        features["probability"].iloc[wanted // 3 : 2 * wanted // 3].idxmax()
    }  # a click on it
    pump(2)
    viewer.scene.camera.zoom *= 0.45
    viewer.layers.selection = {viewer.layers["Grad-CAM"]}
    viewer.canvas.overlays.scale_bar.visible = True
    pump(2.5)  # for the next update of the stream's state
    imageio.imwrite(IMAGES / "napari.png", viewer.screenshot(canvas_only=False, flash=False)[..., :3])
    viewer.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
