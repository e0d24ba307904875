"""A simulated microscope that records when it publishes each frame; a process of its own.

Its standard output is JSON: the times are those of `time.perf_counter`, which is the same clock in all
processes of a machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt

from senoscope_client.simulation.any_ensemble import fovs_for
from senoscope_client.simulation.microscope import Acquired, run
from senoscope_client.wire.messages import Mosaic
from senoscope_client.zeromq.frame_publisher import FramePublisher

_WAIT_S = 30.0


class _RenderedFovs:
    """Some fields of view, rendered before the first is published, again and again."""

    mosaic: Mosaic | None = None

    def __init__(self, shape: tuple[int, int, int], frames: int) -> None:
        self.planned_frames = frames
        self._fovs = fovs_for(shape, min(frames, 16))

    def __iter__(self) -> Iterator[Acquired]:
        for frame in range(self.planned_frames):
            yield Acquired(self._fovs[frame % len(self._fovs)], None, None)


class _TimedPublisher(FramePublisher):
    """Records when `publish` is called for each frame."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.called_s: list[float] = []

    def publish(self, pixels: npt.NDArray[Any], *arguments: Any, **options: Any) -> int:
        """Publish a frame."""
        self.called_s.append(time.perf_counter())
        return super().publish(pixels, *arguments, **options)


def main(argv: Sequence[str] | None = None) -> int:
    """Publish the frames, and print when."""
    parser = argparse.ArgumentParser(description="Publish frames, and print when each was published.")
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--series", required=True)
    parser.add_argument("--channels", required=True, help="names, separated by commas")
    parser.add_argument("--height", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    options = parser.parse_args(argv)
    channels = options.channels.split(",")
    source = _RenderedFovs((len(channels), options.height, options.width), options.frames)
    gc.disable()  # a collection would delay a frame
    with _TimedPublisher(options.endpoint, "bench", channels=channels) as publisher:
        if not publisher.wait_for_subscriber(_WAIT_S):
            print(f"the service did not subscribe to {options.endpoint}", file=sys.stderr)  # noqa: T201
            return 1
        run(publisher, source, options.rate, series_id=options.series)
    print(json.dumps(publisher.called_s))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
