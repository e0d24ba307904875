"""Recorded fields of view from TIFF and NPY stacks, as a source of the simulated microscope."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from senoscope_client.images.axes import FovSpec
from senoscope_client.images.folders import list_images
from senoscope_client.images.reader import OpenStack, open_fovs
from senoscope_client.simulation.fov_defaults import CHANNELS, HEIGHT, WIDTH
from senoscope_client.simulation.microscope import Acquired
from senoscope_client.wire.messages import Index, Mosaic

_SPEC: Final = FovSpec(height=HEIGHT, width=WIDTH, channels=CHANNELS)


class Replay:
    """The fields of view of files, in the order of the files; OME-TIFF has stage positions and pixel sizes.

    Parameters
    ----------
    paths : iterable of path
        TIFF and NPY stacks, and folders of them, whose files are read in natural order (2 before 10). Hidden
        files, sub-folders and files of other kinds are skipped with a warning.
    frames : int, optional
        Number of frames after which to stop.
    loop : bool
        Start again after the last file; each pass is a time point.
    axes : str, optional
        The order of the files' axes, if the files do not define it.
    channels : sequence of str, optional
        The names of the files' channels, in order, if the files do not define them.
    spec : FovSpec
        Channels and size of the fields of view.
    on_warning : callable, optional
        Called with a path and a sentence for each assumption about a file, once per file, and for skipped
        files.

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
        on_warning: Callable[[Path, str], None] | None = None,
    ) -> None:
        self._on_warning = on_warning
        self._reported: set[tuple[Path, str]] = set()
        self.files = tuple(file for path in paths for file in self._files(Path(path)))
        # The number of fields of view in the files is not known before they are read.
        self.planned_frames = frames if loop else None
        self._frames = frames
        self._loop = loop
        self._axes = axes
        self._channels = channels
        self._spec = spec

    def __iter__(self) -> Iterator[Acquired]:
        count = time_point = 0
        while True:
            position = 0
            for file in self.files:
                with self._open(file) as stack:
                    for n in range(len(stack)):
                        if count == self._frames:
                            return
                        index = Index(p=position, t=time_point)
                        yield Acquired(stack.read(n), stack.position_um(n), index, stack.pixel_size_um(n))
                        count, position = count + 1, position + 1
            if not self._loop or position == 0:
                return
            time_point += 1

    @contextmanager
    def _open(self, file: Path) -> Iterator[OpenStack]:
        with open_fovs(file, self._spec, axes=self._axes, channels=self._channels, name=file.name) as stack:
            for text in stack.warnings:
                self._warn(file, text)
            yield stack

    def _warn(self, path: Path, text: str) -> None:
        if self._on_warning is not None and (path, text) not in self._reported:
            self._reported.add((path, text))
            self._on_warning(path, text)

    def _files(self, path: Path) -> list[Path]:
        if not path.is_dir():
            if not path.is_file():
                raise FileNotFoundError(f"{path} does not exist")
            return [path]
        listing = list_images(path)
        for sentence in listing.skipped:
            self._warn(path, sentence)
        if not listing.files:
            skipped = "".join(f"; {sentence}" for sentence in listing.skipped)
            raise FileNotFoundError(f"{path} holds no TIFF or NPY file{skipped}")
        return list(listing.files)
