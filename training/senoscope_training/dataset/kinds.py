"""Which files of a folder are read, which may be passed over, and which would be lost in silence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from senoscope_client.images.image_files import (
    HARMLESS_NAMES,
    HARMLESS_SUFFIXES,
    IMAGE_SUFFIXES,
    NPY_SUFFIX,
    TIFF_SUFFIXES,
    begins_as_image,
)
from senoscope_training.dataset.faults import Fault

SUFFIXES = TIFF_SUFFIXES | {NPY_SUFFIX, ".png"}
"""Of files that are read."""

_FOLDERS = frozenset({".zarr", ".n5"})
_CONVERT = "Convert it to TIFF, NPY or PNG"
_ENDING = "Let its name end in .tif, .npy or .png, or move it away"


@dataclass
class PassedOver:
    """Files of one kind that are not read.

    Attributes
    ----------
    kind : str
        Their suffix, or what they are.
    files : list of str
        Relative to the folder of the data set.
    """

    kind: str
    files: list[str]

    @property
    def words(self) -> str:
        """One file, and how many more there are."""
        more = len(self.files) - 1
        return f"{self.files[0]} and {more} more {self.kind}" if more else self.files[0]


def is_readable(path: Path) -> bool:
    """Whether a file's name or its first bytes are of a kind that is read."""
    return path.suffix.lower() in SUFFIXES or begins_as_image(path)


def is_folder_of_pixels(name: str) -> bool:
    """Whether a folder is one image, in many files."""
    return Path(name).suffix.lower() in _FOLDERS


class Passing:
    """Collects what is passed over, by kind.

    Parameters
    ----------
    root : Path
        Of the data set.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._images: dict[str, PassedOver] = {}
        self._disguised: dict[str, PassedOver] = {}
        self._unknown: dict[str, PassedOver] = {}
        self._hidden: dict[str, PassedOver] = {}
        self._unlisted: dict[str, PassedOver] = {}

    def add(self, file: str) -> None:
        """Take notice of a file or a folder that is not read."""
        path = self._root / file
        name, suffix = path.name, path.suffix.lower()
        if name.startswith("."):
            # Hidden files are written by systems; what they hide under an image's ending may be one.
            if suffix in SUFFIXES | IMAGE_SUFFIXES or begins_as_image(path):
                _put(self._hidden, "hidden files", file)
        elif suffix in IMAGE_SUFFIXES:
            _put(self._images, f"{suffix} files", file)
        elif suffix not in SUFFIXES and begins_as_image(path):
            # Also under a harmless name, such as that of a download that was not renamed.
            _put(self._disguised, f"{suffix or 'such'} files", file)
        elif suffix in HARMLESS_SUFFIXES or name.casefold() in HARMLESS_NAMES:
            return
        elif suffix not in SUFFIXES:
            _put(self._unknown, f"{suffix} files" if suffix else "files without suffix", file)

    def add_unlisted(self, file: str) -> None:
        """Take notice of a file of a readable kind that a table does not list."""
        if Path(file).name.startswith("."):
            self.add(file)
        else:
            _put(self._unlisted, f"{Path(file).suffix.lower()} files", file)

    def faults(self) -> list[Fault]:
        """Files that hold images for certain, one fault per kind."""
        found = [
            Fault("kind", some.words, f"{kind.split()[0]} is not read", f"{_CONVERT}, or move it away")
            for kind, some in sorted(self._images.items())
        ]
        what = "begins as a TIFF, NPY or PNG file does, and has the name of none"
        found += [Fault("kind", some.words, what, _ENDING) for _, some in sorted(self._disguised.items())]
        return found

    def notes(self, *, listed: bool) -> tuple[str, ...]:
        """What else is passed over, one sentence per kind.

        Parameters
        ----------
        listed : bool
            Whether a table says what counts: images that it does not list are no fault then, but noted.
        """
        table = "not listed in dataset.csv, and not read"
        found = [
            f"{some.words}: not read, for they are hidden, like what Macs and file services add to folders; "
            "rename those that hold fields of view"
            for some in self._hidden.values()
        ]
        found += [
            f"{some.words}: not read, for the kind is not known here; convert what holds fields of view to "
            "TIFF, NPY or PNG"
            for _, some in sorted(self._unknown.items())
        ]
        if listed:
            unlisted = [*sorted(self._unlisted.items()), *sorted((self._images | self._disguised).items())]
            found += [f"{some.words}: {table}; add rows for what belongs to it" for _, some in unlisted]
        return tuple(found)


def _put(kinds: dict[str, PassedOver], kind: str, file: str) -> None:
    kinds.setdefault(kind, PassedOver(kind, [])).files.append(file)
