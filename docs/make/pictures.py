"""Make the README's pictures with the software itself.

::

    python docs/make/pictures.py models/starter

Writes ``docs/images/gradcam.png`` and ``docs/images/demo.svg``.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console

from senoscope import Ensemble
from senoscope.commands.demo_view import DemoScore, LiveTable
from senoscope.fov import Fov
from senoscope.results.pictures import overlay_png, scale_channel
from senoscope.results.record import ResultMaker
from senoscope.scheduling.active_ensemble import fov_spec_of
from senoscope_client.models.result import Source
from senoscope_client.simulation.microscope import MosaicScan
from senoscope_client.simulation.synthetic import PIXEL_SIZE_UM, synthesize

FONT = cv2.FONT_HERSHEY_DUPLEX
WHITE = (255, 255, 255)
SEED, FRAMES, IMAGES = 2023, 14, Path(__file__).parents[1] / "images"


def montage(ensemble: Ensemble) -> None:
    """Draw SRS, TPEF, transmission, and Grad-CAM over SRS, of a control and of a senescent FOV."""
    rows = []
    for wanted in (False, True):
        fov = next(f for f in (synthesize(SEED, n) for n in range(50)) if f.senescent == wanted)
        (prediction,) = ensemble.predict(fov.pixels)
        # Each channel has its own contrast here; the networks use the ensemble's intensity range.
        limits = [np.percentile(fov.pixels[c], [0.5, 99.8]) for c in range(3)]
        channels = [scale_channel(fov.pixels[c], *limits[c]) for c in range(3)]
        pictures = [cv2.cvtColor((c * 255).astype(np.uint8), cv2.COLOR_GRAY2BGR) for c in channels]
        overlay = overlay_png(prediction.map(), channels[0])
        pictures.append(cv2.imdecode(np.frombuffer(overlay, np.uint8), cv2.IMREAD_COLOR))
        words = f"{prediction.label} {prediction.probability:.2f}"
        cv2.putText(pictures[3], words, (8, 240), FONT, 0.6, WHITE, 1, cv2.LINE_AA)
        draw_scale_bar(pictures[0], 20)
        rows.append(np.hstack(pictures))
    rows.insert(0, headings(["SRS", "TPEF", "Transmission", "Grad-CAM over SRS"], rows[0].shape[1]))
    cv2.imwrite(str(IMAGES / "gradcam.png"), np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def headings(names: list[str], width: int) -> np.ndarray:
    """Return a line of titles, the last with the colour scale of the map, from 0 to 1."""
    line = np.zeros((26, width, 3), np.uint8)
    step = width // len(names)
    for n, name in enumerate(names):
        cv2.putText(line, name, (n * step + 8, 18), FONT, 0.5, WHITE, 1, cv2.LINE_AA)
    ramp = cv2.applyColorMap(np.linspace(0, 255, 70).astype(np.uint8)[None], cv2.COLORMAP_INFERNO)
    line[8:20, width - 90 : width - 20] = ramp
    for digit, x in (("0", width - 102), ("1", width - 14)):
        cv2.putText(line, digit, (x, 19), FONT, 0.45, WHITE, 1, cv2.LINE_AA)
    return line


def draw_scale_bar(picture: np.ndarray, length_um: int) -> None:
    """Draw a bar of a length in micrometres in the lower left corner."""
    right = 10 + round(length_um / PIXEL_SIZE_UM)
    cv2.rectangle(picture, (10, 236), (right, 239), WHITE, cv2.FILLED)
    cv2.putText(picture, f"{length_um} um", (12, 229), FONT, 0.45, WHITE, 1, cv2.LINE_AA)


def screen(ensemble: Ensemble) -> None:
    """Draw the demo's live table after some frames."""
    console = Console(record=True, width=118, force_terminal=True, file=sys.stderr)
    maker = ResultMaker(ensemble, 24.0, linked=True)
    title = "Senoscope live: synthetic FOVs, not for science"
    table = LiveTable(console, DemoScore(SEED), total=30, title=title)
    for n, frame in zip(range(FRAMES), MosaicScan(SEED, frames=30), strict=False):
        source = Source(kind="stream", frame=n, position_um=frame.position_um)
        fov = Fov(frame.pixels, source, spec=fov_spec_of(ensemble))
        started_s = time.perf_counter()
        (prediction,) = ensemble.predict(frame.pixels)
        compute_ms = (time.perf_counter() - started_s) * 1e3
        result = maker.make(fov, prediction, ensemble.model_range, started_s, compute_ms).result
        table.add(result)
    console.print(table.get_renderable())
    svg = console.export_svg(title="senoscope demo")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # any monospaced font will do
    (IMAGES / "demo.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    with Ensemble.load(sys.argv[1], device="cpu") as loaded:
        montage(loaded)
        screen(loaded)
