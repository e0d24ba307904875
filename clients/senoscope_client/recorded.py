"""Reading a recorded file field of view by field of view, with what its metadata tell of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from senoscope_client import ifd, images, ome
from senoscope_client.axes import FovSpec
from senoscope_client.errors import SenoscopeError, UnreadableImage
from senoscope_client.ome_places import ImagePlaces, read_places
from senoscope_client.wire import Position

# A file of the operator's own may be as long as a night.
_MAX_PAGES: Final = 1_000_000
_LIMITS: Final = images.Limits(max_fovs=_MAX_PAGES, max_decoded_bytes=8 * 1024**3)


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A field of view, [C, H, W], and what the file tells of it."""

    pixels: npt.NDArray[Any]
    position_um: Position | None = None
    pixel_size_um: float | None = None


def read_recorded(
    path: Path, spec: FovSpec, axes: str | None = None, channels: Sequence[str] | None = None
) -> Iterator[Recorded]:
    """The fields of view of a TIFF or NPY file.

    An OME-TIFF file may hold many images, such as one per stage position; one is decoded at a time.

    Parameters
    ----------
    path : Path
    spec : FovSpec
        What the fields of view must be like.
    axes, channels
        As of `read_fovs`, of each image.

    Raises
    ------
    SenoscopeError
        As of `read_fovs`.
    OSError
        If the file cannot be opened.
    """
    xml = _ome_xml(path)
    if xml is None:
        stack = images.read_fovs(path, spec, axes=axes, channels=channels, name=path.name)
        yield from map(Recorded, stack.pixels)
        return
    from senoscope_client import tiff

    places = read_places(xml)
    with path.open("rb") as stream:
        size = path.stat().st_size
        with tiff.open_tiff(stream) as opened:
            series = [one for one in opened.series if not (one.keyframe.is_reduced or one.keyframe.is_mask)]
            for n, one in enumerate(series):
                place = places[n] if len(series) == len(places) else ImagePlaces()
                description = tiff.describe_image(
                    one, place.channels, size, max_pages=_MAX_PAGES, name=path.name
                )
                image = images.Image(*description)
                try:
                    pixels = images.decode(image, size, spec, axes, channels, _LIMITS, path.name).pixels
                except SenoscopeError:
                    raise
                except Exception as error:  # as in `read_fovs`
                    raise UnreadableImage(
                        f"{path.name} is damaged in image {n} ({type(error).__name__}); write it again"
                    ) from error
                yield from _placed(pixels, image, place)


def _placed(pixels: npt.NDArray[Any], image: images.Image, place: ImagePlaces) -> Iterator[Recorded]:
    leading = [(a, n) for a, n in zip(image.axes, image.shape, strict=True) if a not in "CYXS" and n != 1]
    for n, fov in enumerate(pixels):
        at = np.unravel_index(n, [length for _, length in leading]) if leading else ()
        index = {axis: int(i) for (axis, _), i in zip(leading, at, strict=True)}
        position = place.position(index.get("T", 0), index.get("Z", 0))
        yield Recorded(fov, position, place.pixel_size_um)


def _ome_xml(path: Path) -> str | None:
    """The file's OME-XML, checked; None where it has none, or cannot be read so far."""
    with path.open("rb") as stream:
        if stream.read(4) not in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
            return None
        stream.seek(0)
        try:
            from senoscope_client import tiff
        except ImportError:  # `read_fovs` tells
            return None
        smallest = ifd.check_pages(stream, path.stat().st_size, max_pages=_MAX_PAGES, name=path.name)
        try:
            with tiff.open_tiff(stream) as opened:
                xml = opened.ome_metadata if opened.is_ome else None
                pages = len(opened.pages)
        except Exception:  # `read_fovs` tells what
            return None
    if xml is not None:
        ome.channel_names(xml, pages=pages, smallest=smallest, name=path.name)
    return xml
