"""Reading of recorded files one field of view at a time, with its position and pixel size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from senoscope_client.images.axes import FovSpec
from senoscope_client.images.notices import Notice
from senoscope_client.images.reader import open_fovs
from senoscope_client.wire.messages import Position


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A field of view, [C, H, W], and its metadata in the file."""

    pixels: npt.NDArray[Any]
    position_um: Position | None = None
    pixel_size_um: float | None = None


def read_recorded(
    path: Path,
    spec: FovSpec,
    axes: str | None = None,
    channels: Sequence[str] | None = None,
    on_notice: Callable[[Notice], None] | None = None,
) -> Iterator[Recorded]:
    """Iterate over the fields of view of a TIFF or NPY file of any length; only one is in memory at a time.

    Parameters
    ----------
    path : Path
    spec : FovSpec
        Channels and size of the fields of view.
    axes, channels
        See `open_fovs`.
    on_notice : callable, optional
        Called with each notice about the file, before the first field of view.

    Raises
    ------
    SenoscopeError
        See `open_fovs`.
    OSError
        If the file cannot be opened.
    """
    with open_fovs(path, spec, axes=axes, channels=channels, name=path.name) as stack:
        for notice in stack.notices if on_notice is not None else ():
            assert on_notice is not None
            on_notice(notice)
        for n in range(len(stack)):
            yield Recorded(stack.read(n), stack.position_um(n), stack.pixel_size_um(n))
