"""File formats that are read, and faults and notes about the files that are skipped."""

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
"""Suffixes of files that are read."""

_FOLDERS = frozenset({".zarr", ".n5"})
_CONVERT = "Convert it to TIFF, NPY or PNG"
_RENAME = "Rename it so that it ends in .tif, .npy or .png, or move it away"


@dataclass
class SkippedKind:
    """Skipped files of one kind.

    Attributes
    ----------
    kind : str
        The suffix, or a description.
    files : list of str
        Relative to the folder of the data set.
    """

    kind: str
    files: list[str]

    @property
    def summary(self) -> str:
        """The first file, and the number of others."""
        more = len(self.files) - 1
        return f"{self.files[0]} and {more} more {self.kind}" if more else self.files[0]


def is_readable(path: Path) -> bool:
    """Return whether the suffix or the first bytes of a file belong to a format that is read."""
    return path.suffix.lower() in SUFFIXES or begins_as_image(path)


def is_image_folder(name: str) -> bool:
    """Return whether a folder is one image that consists of many files."""
    return Path(name).suffix.lower() in _FOLDERS


class SkippedFiles:
    """Collects the files that are skipped, by kind.

    Parameters
    ----------
    root : Path
        Folder of the data set.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._images: dict[str, SkippedKind] = {}
        self._misnamed: dict[str, SkippedKind] = {}
        self._unknown: dict[str, SkippedKind] = {}
        self._hidden: dict[str, SkippedKind] = {}
        self._unlisted: dict[str, SkippedKind] = {}

    def add(self, file: str) -> None:
        """Add a file, or a folder that is one image."""
        path = self._root / file
        name, suffix = path.name, path.suffix.lower()
        if name.startswith("."):
            # Most hidden files are written by operating systems; those that may be images are reported.
            if suffix in SUFFIXES | IMAGE_SUFFIXES or begins_as_image(path):
                _append(self._hidden, "hidden files", file)
        elif suffix in IMAGE_SUFFIXES:
            _append(self._images, f"{suffix} files", file)
        elif suffix not in SUFFIXES and begins_as_image(path):
            # Also if the suffix is harmless, as of a download that was not renamed.
            _append(self._misnamed, f"{suffix or 'such'} files", file)
        elif suffix in HARMLESS_SUFFIXES or name.casefold() in HARMLESS_NAMES:
            return
        elif suffix not in SUFFIXES:
            _append(self._unknown, f"{suffix} files" if suffix else "files without suffix", file)

    def add_unlisted(self, file: str) -> None:
        """Add a readable file that dataset.csv does not list."""
        if Path(file).name.startswith("."):
            self.add(file)
        else:
            _append(self._unlisted, f"{Path(file).suffix.lower()} files", file)

    def faults(self) -> list[Fault]:
        """Return one fault per kind of files that are certainly images."""
        found = [
            Fault("kind", some.summary, f"{kind.split()[0]} is not supported", f"{_CONVERT}, or move it away")
            for kind, some in sorted(self._images.items())
        ]
        problem = "has the contents of a TIFF, NPY or PNG file, but another suffix"
        found += [Fault("kind", some.summary, problem, _RENAME) for _, some in sorted(self._misnamed.items())]
        return found

    def notes(self, *, listed: bool) -> tuple[str, ...]:
        """Return one sentence per kind of other files.

        Parameters
        ----------
        listed : bool
            Whether there is a dataset.csv: images that it does not list are then notes instead of faults.
        """
        found = [
            f"{some.summary}: skipped because they are hidden, like files that macOS and file servers add; "
            "rename those that contain fields of view"
            for some in self._hidden.values()
        ]
        found += [
            f"{some.summary}: skipped because the format is unknown; convert files that contain fields of "
            "view to TIFF, NPY or PNG"
            for _, some in sorted(self._unknown.items())
        ]
        if listed:
            unlisted = [*sorted(self._unlisted.items()), *sorted((self._images | self._misnamed).items())]
            found += [
                f"{some.summary}: skipped because not listed in dataset.csv; add rows for files that belong "
                "to the data set"
                for _, some in unlisted
            ]
        return tuple(found)


def _append(kinds: dict[str, SkippedKind], kind: str, file: str) -> None:
    kinds.setdefault(kind, SkippedKind(kind, [])).files.append(file)
