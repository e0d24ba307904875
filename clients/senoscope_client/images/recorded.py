"""Reading a recorded file field of view by field of view, with what its metadata tell of each."""

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
    """A field of view, [C, H, W], and what the file tells of it."""

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
    """The fields of view of a TIFF or NPY file, as long as it may be: one is in memory at a time.

    Parameters
    ----------
    path : Path
    spec : FovSpec
        What the fields of view must be like.
    axes, channels
        As of `open_fovs`.
    on_notice : callable, optional
        Called with each notice about the file, before its first field of view comes.

    Raises
    ------
    SenoscopeError
        As of `open_fovs`.
    OSError
        If the file cannot be opened.
    """
    with open_fovs(path, spec, axes=axes, channels=channels, name=path.name) as stack:
        for notice in stack.notices if on_notice is not None else ():
            assert on_notice is not None
            on_notice(notice)
        for n in range(len(stack)):
            yield Recorded(stack.read(n), stack.position_um(n), stack.pixel_size_um(n))
