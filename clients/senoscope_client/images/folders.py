"""Lists of the image files of a folder, in natural order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from natsort import natsorted

from senoscope_client.images.image_files import (
    HARMLESS_NAMES,
    HARMLESS_SUFFIXES,
    IMAGE_SUFFIXES,
    NPY_SUFFIX,
    TIFF_SUFFIXES,
    begins_as_image,
)

_APPLE_DOUBLE: Final = b"\x00\x05\x16\x07"
READ_SUFFIXES: Final = TIFF_SUFFIXES | {NPY_SUFFIX}
"""Suffixes of files that are read, in lower case."""
_MAX_NAMES: Final = 3  # of files of one kind, in a sentence


@dataclass(frozen=True)
class ImageListing:
    """The files of a folder.

    Attributes
    ----------
    files : tuple of Path
        TIFF and NPY files, in natural order.
    skipped : tuple of str
        A sentence for each kind of file that is not read, but could hold fields of view.
    """

    files: tuple[Path, ...]
    skipped: tuple[str, ...]


def naturally_sorted(paths: Iterable[Path]) -> list[Path]:
    """Sort paths in natural order: 2 before 10, ignoring case, folder by folder."""
    return natsorted(paths, key=lambda path: [(part.casefold(), part) for part in path.parts])


def list_images(folder: Path) -> ImageListing:
    """List the TIFF and NPY files of a folder, without its sub-folders.

    Raises
    ------
    OSError
        If the folder or one of its files cannot be read.
    """
    files: list[Path] = []
    skipped: dict[str, list[Path]] = {}
    for path in naturally_sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        is_hidden = path.name.startswith(".")  # such as macOS metadata of another file (._NAME)
        if path.is_dir() and suffix not in IMAGE_SUFFIXES:
            if not is_hidden:
                skipped.setdefault("sub-folders are not read; pass their paths, too", []).append(path)
        elif suffix in READ_SUFFIXES:
            hidden = is_hidden or _is_apple_double(path)
            (skipped.setdefault("hidden files were skipped", []) if hidden else files).append(path)
        elif is_hidden or suffix in HARMLESS_SUFFIXES or path.name.casefold() in HARMLESS_NAMES:
            continue
        else:
            skipped.setdefault(_skip_reason(path, suffix), []).append(path)
    return ImageListing(tuple(files), tuple(_sentence(what, paths) for what, paths in skipped.items()))


def _skip_reason(path: Path, suffix: str) -> str:
    if suffix != ".png" and begins_as_image(path):
        return "image files with another suffix are not read; rename them to .tif or .npy"
    kind = f"{suffix} files" if suffix else "files without suffix"
    return f"{kind} are not read; convert those that hold fields of view to TIFF or NPY"


def _sentence(what: str, paths: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in paths[:_MAX_NAMES]) + (", ..." if len(paths) > _MAX_NAMES else "")
    fact, semicolon, advice = what.partition(";")
    return f"{fact}, {len(paths)} of them: {names}{semicolon}{advice}"


def _is_apple_double(path: Path) -> bool:
    """Return whether the content of a file is macOS metadata of another file."""
    with path.open("rb") as file:
        return file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE
