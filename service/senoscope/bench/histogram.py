"""The histogram of the measured latencies, as an SVG picture for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Final

from senoscope.bench.passport import HISTOGRAM_NAME, Histogram, Passport, StreamTimes

_WIDTH, _LEFT, _RIGHT = 760, 58, 20
_HEAD, _PANEL, _BARS, _FOOT = 62, 190, 110, 40  # heights; the bars are at the bottom of a panel
_MIN_BAR: Final = 3.0  # one frame must be visible
_TICKS: Final = (1, 2, 5)
_STYLE: Final = """text { font: 13px Helvetica, Arial, sans-serif; fill: #1f1f2b }
.head { font-size: 15px; font-weight: bold } .small { font-size: 12px }
.paper { fill: #ffffff } .bar { fill: #5e35b1 } .grid { stroke: #d8d8e0 } .axis { stroke: #1f1f2b }
.mark { stroke: #00695c; stroke-width: 2 } .limit { stroke: #c62828; stroke-width: 2; stroke-dasharray: 6 4 }
.marktext { fill: #00695c } .limittext { fill: #c62828 }
@media (prefers-color-scheme: dark) {
text { fill: #ececf4 } .paper { fill: #17171f } .bar { fill: #9575cd } .grid { stroke: #3a3a48 }
.axis { stroke: #ececf4 } .mark { stroke: #4db6ac } .limit { stroke: #ef9a9a }
.marktext { fill: #4db6ac } .limittext { fill: #ef9a9a }
}"""


def write_histogram(passport: Passport, folder: Path) -> Path:
    """Write the picture to a folder, and return its path."""
    path = folder / HISTOGRAM_NAME
    path.write_text(draw_histogram(passport), encoding="utf-8", newline="\n")
    return path


def draw_histogram(passport: Passport) -> str:
    """Return the latencies of all streams as SVG, one panel each, with the same logarithmic axis."""
    streams = [stream for stream in passport.streams if stream.histogram is not None]
    axis = _Axis.of([stream.histogram for stream in streams if stream.histogram], passport.deadline_ms)
    height = _HEAD + _PANEL * len(streams) + _FOOT
    where = f"{passport.machine.gpu.name if passport.machine.gpu else passport.machine.cpu}"
    what = f"{passport.ensemble.name} {passport.ensemble.version}, {passport.precision}, on {where}"
    described = "; ".join(f"{stream.title}: {_figures(stream)}" for stream in streams)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-labelledby="title description">',
        '<title id="title">Latency of streamed fields of view, wire to wire</title>',
        f'<desc id="description">{escape(described)}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}" rx="8"/>',
        _text(_LEFT, 26, "Latency of streamed fields of view, wire to wire", "head"),
        _text(_LEFT, 46, f"{what}, {passport.made_at:%Y-%m-%d}", "small"),
    ]
    for n, stream in enumerate(streams):
        parts += _panel(stream, axis, _HEAD + _PANEL * n, passport.deadline_ms)
    parts.append(_text(_WIDTH / 2, height - 8, "milliseconds, logarithmic", "small", "middle"))
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Axis:
    """A logarithmic axis of times, from ``low`` to ``high`` milliseconds."""

    def __init__(self, low: float, high: float) -> None:
        self._low = math.log10(low)
        self._scale = (_WIDTH - _LEFT - _RIGHT) / (math.log10(high) - self._low)
        decades = range(math.floor(self._low), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in _TICKS]
        self.ticks = [tick for tick in ticks if low <= tick * 1.0001 and tick <= high * 1.0001]

    @classmethod
    def of(cls, histograms: list[Histogram], deadline_ms: float | None) -> _Axis:
        """Return an axis for all histograms and the deadline."""
        edges = [edge for histogram in histograms for edge in histogram.edges_ms]
        edges += [deadline_ms] if deadline_ms is not None else []
        low, high = min(edges, default=1.0) * 0.8, max(edges, default=10.0) * 1.25
        middle = math.sqrt(low * high)
        return cls(min(low, middle / 3), max(high, middle * 3))

    def x(self, time_ms: float) -> float:
        """Return where a time is in the picture."""
        return _LEFT + (math.log10(time_ms) - self._low) * self._scale


def _panel(stream: StreamTimes, axis: _Axis, top: float, deadline_ms: float | None) -> Iterator[str]:
    histogram, latency = stream.histogram, stream.latency_ms
    assert histogram is not None
    assert latency is not None
    bottom = top + _PANEL - 22
    first = bottom - _BARS
    yield _text(_LEFT, top + 18, f"{stream.title}: {_figures(stream)}", "small")
    yield _text(_LEFT - 8, first - 6, "FOVs", "small", "end")
    most = max(histogram.counts)
    for count in [10**power for power in range(math.floor(math.log10(most)) + 1)]:
        y = bottom - _height(count, most)
        yield _line(_LEFT, y, _WIDTH - _RIGHT, y, "grid")
        yield _text(_LEFT - 8, y + 4, str(count), "small", "end")
    for low, high, count in zip(histogram.edges_ms, histogram.edges_ms[1:], histogram.counts, strict=False):
        if count:
            x, height = axis.x(low), _height(count, most)
            width = axis.x(high) - x - 1
            yield (
                f'<rect class="bar" x="{x:.1f}" y="{bottom - height:.1f}" width="{width:.1f}" '
                f'height="{height:.1f}"><title>{low:.3g} to {high:.3g} ms: {count} FOVs</title></rect>'
            )
    yield _line(_LEFT, bottom, _WIDTH - _RIGHT, bottom, "axis")
    for tick in axis.ticks:
        yield _line(axis.x(tick), bottom, axis.x(tick), bottom + 5, "axis")
        yield _text(axis.x(tick), bottom + 19, f"{tick:g}", "small", "middle")
    for name, time_ms, anchor, shift in (("p50", latency.p50, "end", -5), ("p99", latency.p99, "start", 5)):
        yield _line(axis.x(time_ms), first - 16, axis.x(time_ms), bottom, "mark")
        yield _text(axis.x(time_ms) + shift, first - 6, name, "small marktext", anchor)
    if deadline_ms is not None:
        yield _line(axis.x(deadline_ms), first - 32, axis.x(deadline_ms), bottom, "limit")
        yield _text(axis.x(deadline_ms) + 5, first - 22, f"deadline {deadline_ms:g} ms", "small limittext")


def _figures(stream: StreamTimes) -> str:
    latency = stream.latency_ms
    if latency is None:
        return "no results"
    return (
        f"{latency.count} FOVs, p50 {latency.p50:.1f}, p99 {latency.p99:.1f}, max {latency.max:.1f} ms, "
        f"{stream.dropped + stream.failed} dropped"
    )


def _height(count: int, most: int) -> float:
    """Return the height of a bar, on a logarithmic scale that shows a single frame among thousands."""
    return max(_MIN_BAR, _BARS * math.log10(1 + count) / math.log10(1 + most))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
