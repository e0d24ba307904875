"""Listing the image files of a folder, in the order in which people number them."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Final

from natsort import natsorted

_APPLE_DOUBLE: Final = b"\x00\x05\x16\x07"


def naturally_sorted(paths: Iterable[Path]) -> list[Path]:
    """Paths in natural order: 2 before 10, upper and lower case alike, folder by folder."""
    return natsorted(paths, key=lambda path: [(part.casefold(), part) for part in path.parts])


def is_hidden(path: Path) -> bool:
    """Whether a file is hidden, as its name says, such as those that macOS keeps beside others (._NAME)."""
    return path.name.startswith(".")


def is_apple_double(path: Path) -> bool:
    """Whether a file holds what macOS keeps beside another, whatever its name."""
    with path.open("rb") as file:
        return file.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE


def list_images(folder: Path, suffixes: Container[str]) -> tuple[list[Path], list[Path]]:
    """The files of a folder with one of some endings, in natural order; and the hidden ones among them.

    Parameters
    ----------
    folder : Path
        Its sub-folders are not listed.
    suffixes : container of str
        In lower case, with the dot.
    """
    found = naturally_sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file()
    )
    hidden = [path for path in found if is_hidden(path) or is_apple_double(path)]
    return [path for path in found if path not in hidden], hidden
