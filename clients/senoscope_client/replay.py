"""Recorded fields of view, from TIFF and NPY stacks, as a source for the simulated microscope."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from senoscope_client.axes import FovSpec
from senoscope_client.fov_defaults import CHANNELS, HEIGHT, WIDTH
from senoscope_client.microscope import Acquired
from senoscope_client.recorded import Recorded, read_recorded
from senoscope_client.wire import Index, Mosaic

_SUFFIXES: Final = frozenset({".tif", ".tiff", ".btf", ".npy"})
_SPEC: Final = FovSpec(height=HEIGHT, width=WIDTH, channels=CHANNELS)


class Replay:
    """The fields of view of files, in the order of the files; OME-TIFF tells stage positions and pixel sizes.

    Parameters
    ----------
    paths : iterable of path
        TIFF and NPY stacks, and folders of them, which are taken in the order of their names.
    frames : int, optional
        When to stop.
    loop : bool
        Begin anew when the files are through; each pass is a time point.
    axes : str, optional
        The order of the files' axes, where they do not tell.
    channels : sequence of str, optional
        The names of the files' channels, in order, where they do not tell.
    spec : FovSpec
        What the fields of view must be like.

    Raises
    ------
    OSError
        If a path does not exist, or there is no stack at all.
    SenoscopeError
        While iterating, if a file cannot be read or does not fit ``spec``.
    """

    planned_frames: int | None
    mosaic: Mosaic | None = None

    def __init__(
        self,
        paths: Iterable[str | Path],
        *,
        frames: int | None = None,
        loop: bool = False,
        axes: str | None = None,
        channels: Sequence[str] | None = None,
        spec: FovSpec = _SPEC,
    ) -> None:
        self.files = tuple(file for path in paths for file in _files(Path(path)))
        # How many the files hold is known when they have been read.
        self.planned_frames = frames if loop else None
        self._frames = frames
        self._loop = loop
        self._axes = axes
        self._channels = channels
        self._spec = spec

    def __iter__(self) -> Iterator[Acquired]:
        sent = time_point = 0
        while True:
            place = 0
            for file in self.files:
                for fov in self._read(file):
                    if sent == self._frames:
                        return
                    index = Index(p=place, t=time_point)
                    yield Acquired(fov.pixels, fov.position_um, index, fov.pixel_size_um)
                    sent, place = sent + 1, place + 1
            if not self._loop or place == 0:
                return
            time_point += 1

    def _read(self, file: Path) -> Iterator[Recorded]:
        channels = None if self._channels is None else list(self._channels)
        return read_recorded(file, self._spec, self._axes, channels)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{path} holds no TIFF and no NPY file")
    return files
