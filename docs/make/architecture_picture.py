"""Draw the way of a field of view through the service.

::

    python docs/make/architecture_picture.py

Writes ``docs/images/architecture.svg``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

PICTURE = Path(__file__).parents[1] / "images" / "architecture.svg"
WIDTH, HEIGHT = 1160, 470
INK, EDGE, FILL, PAPER = "#1f1f2b", "#5e35b1", "#ede7f6", "#ffffff"
ANSWER_Y = 425
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" \
font-family="Helvetica, Arial, sans-serif" font-size="13" fill="{ink}">
<title>The way of a field of view through the service</title>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0,0 L8,4 L0,8 z" fill="{ink}"/></marker></defs>
<rect width="{width}" height="{height}" rx="8" fill="{paper}"/>
"""


@dataclass(frozen=True)
class Box:
    """A part of the service: its folder, and what it does, one line each."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: Sequence[str] = ()

    def draw(self) -> str:
        """Return the box as SVG."""
        text = [f'<tspan font-weight="bold">{escape(self.title)}</tspan>', *map(escape, self.lines)]
        first = self.y + self.height / 2 - 8.5 * (len(text) - 1) + 4.5
        rows = [
            f'<text x="{self.x + self.width / 2:g}" y="{first + 17 * n:g}" text-anchor="middle">{row}</text>'
            for n, row in enumerate(text)
        ]
        frame = (
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" rx="5" '
            f'fill="{FILL}" stroke="{EDGE}" stroke-width="1.5"/>'
        )
        return "\n".join([frame, *rows])

    @property
    def left(self) -> tuple[int, int]:
        """The middle of the left edge."""
        return self.x, self.y + self.height // 2

    @property
    def right(self) -> tuple[int, int]:
        """The middle of the right edge."""
        return self.x + self.width, self.y + self.height // 2

    @property
    def top(self) -> tuple[int, int]:
        """The middle of the upper edge."""
        return self.x + self.width // 2, self.y

    @property
    def bottom(self) -> tuple[int, int]:
        """The middle of the lower edge."""
        return self.x + self.width // 2, self.y + self.height


def arrow(*points: tuple[int, int], dashed: bool = False) -> str:
    """Return a line through points, with a head at the last one."""
    path = " ".join(f"{x},{y}" for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<polyline points="{path}" fill="none" stroke="{INK}" stroke-width="1.3"{dashes} '
        'marker-end="url(#head)"/>'
    )


def label(x: int, y: int, text: str, anchor: str = "middle") -> str:
    """Return a text next to a line."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="12">{escape(text)}</text>'


def picture() -> str:
    """Return the picture as SVG."""
    publisher = Box(20, 75, 140, 60, "FramePublisher", ["acquisition PC"])
    client = Box(20, 315, 140, 60, "HTTP client", ["browser, curl"])
    stream = Box(240, 65, 130, 80, "stream/", ["receive, check,", "count frames"])
    uploads = Box(240, 305, 130, 80, "api/", ["check the key,", "read the stack"])
    live = Box(420, 75, 140, 60, "live lane", ["drops the oldest"])
    scheduler = Box(420, 180, 140, 80, "scheduling/", ["live frames first,", "stacks in batches"])
    batch = Box(420, 315, 140, 60, "batch lane", ["503 when full"])
    engine = Box(610, 180, 120, 80, "engine/", ["networks,", "Grad-CAM"])
    results = Box(780, 180, 130, 80, "results/", ["make the result,", "deliver it"])
    runlog = Box(780, 315, 130, 60, "runlog/", ["database"])
    sinks = [
        Box(970, 45 + 60 * n, 165, 48, title, [line])
        for n, (title, line) in enumerate(
            [
                ("api/routes/live", "WebSocket"),
                ("outputs/zeromq", "ZeroMQ PUB"),
                ("outputs/stage_map", "map of the series"),
                ("outputs/archive", "OME-TIFF"),
                ("decisions/", "rules"),
                ("metrics/, tracing/", "Prometheus, OTLP"),
            ]
        )
    ]
    boxes = [publisher, client, stream, uploads, live, scheduler, batch, engine, results, runlog, *sinks]
    bus = 940
    parts = [
        HEAD.format(width=WIDTH, height=HEIGHT, ink=INK, paper=PAPER),
        f'<rect x="215" y="20" width="930" height="435" rx="8" fill="none" stroke="{INK}" '
        'stroke-dasharray="2 3"/>',
        label(225, 38, "senoscope serve", "start"),
        *(box.draw() for box in boxes),
        arrow(publisher.right, stream.left),
        label(187, 95, "ZeroMQ"),
        arrow(client.right, uploads.left),
        label(187, 335, "POST"),
        arrow(stream.right, live.left),
        arrow(uploads.right, batch.left),
        arrow(live.bottom, scheduler.top),
        arrow(batch.top, scheduler.bottom),
        arrow(scheduler.right, engine.left),
        arrow(engine.right, results.left),
        arrow(results.bottom, runlog.top),
        label(853, 292, "1. commit", "start"),
        label(932, 165, "2. publish", "end"),
        f'<polyline points="{results.right[0]},{results.right[1]} {bus},{results.right[1]}" fill="none" '
        f'stroke="{INK}" stroke-width="1.3"/>',
        f'<polyline points="{bus},{sinks[0].left[1]} {bus},{sinks[-1].left[1]}" fill="none" '
        f'stroke="{INK}" stroke-width="1.3"/>',
        *(arrow((bus, sink.left[1]), sink.left) for sink in sinks),
        arrow(
            (bus, sinks[-1].left[1]),
            (bus, ANSWER_Y),
            (uploads.bottom[0], ANSWER_Y),
            uploads.bottom,
            dashed=True,
        ),
        label(600, ANSWER_Y - 8, "answer to the request, when all results of the stack are published"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8", newline="\n")
    print(PICTURE)
