"""File formats that are read, and faults and notes about the files that are skipped."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from senoscope_client.images.image_files import (
    HARMLESS_NAMES,
    HARMLESS_SUFFIXES,
    IMAGE_SUFFIXES,
    NPY_SUFFIX,
    TIFF_SUFFIXES,
    begins_as_image,
)
from senoscope_training.dataset.faults import Fault, and_more

SUFFIXES = TIFF_SUFFIXES | {NPY_SUFFIX, ".png"}
"""Suffixes of files that are read."""

_FOLDERS = frozenset({".zarr", ".n5"})
_CONVERT = "Convert it to TIFF, NPY or PNG"
_RENAME = "Rename it so that it ends in .tif, .npy or .png, or move it away"


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
        # Names of files, relative to the folder, by reason and kind.
        self._found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))

    def add(self, file: str) -> None:
        """Add a file, or a folder that is one image."""
        path = self._root / file
        name, suffix = path.name, path.suffix.lower()
        if name.startswith("."):
            # Most hidden files are written by operating systems; those that may be images are reported.
            if suffix in SUFFIXES | IMAGE_SUFFIXES or begins_as_image(path):
                self._found["hidden"]["hidden files"].append(file)
        elif suffix in IMAGE_SUFFIXES:
            self._found["images"][f"{suffix} files"].append(file)
        elif suffix not in SUFFIXES and begins_as_image(path):
            # Also if the suffix is harmless, as of a download that was not renamed.
            self._found["misnamed"][f"{suffix or 'such'} files"].append(file)
        elif suffix in HARMLESS_SUFFIXES or name.casefold() in HARMLESS_NAMES:
            return
        elif suffix not in SUFFIXES:
            self._found["unknown"][f"{suffix} files" if suffix else "files without suffix"].append(file)

    def add_unlisted(self, file: str) -> None:
        """Add a readable file that dataset.csv does not list."""
        if Path(file).name.startswith("."):
            self.add(file)
        else:
            self._found["unlisted"][f"{Path(file).suffix.lower()} files"].append(file)

    def faults(self) -> list[Fault]:
        """Return one fault per kind of files that are certainly images."""
        found = [
            Fault("kind", summary, f"{kind.split()[0]} is not supported", f"{_CONVERT}, or move it away")
            for kind, summary in self._summaries("images")
        ]
        problem = "has the contents of a TIFF, NPY or PNG file, but another suffix"
        return found + [
            Fault("kind", summary, problem, _RENAME) for _, summary in self._summaries("misnamed")
        ]

    def notes(self, *, listed: bool) -> tuple[str, ...]:
        """Return one sentence per kind of other files.

        Parameters
        ----------
        listed : bool
            Whether there is a dataset.csv: images that it does not list are then notes instead of faults.
        """
        unknown = "the format is unknown; convert files that contain fields of view to TIFF, NPY or PNG"
        unlisted = "not listed in dataset.csv; add rows for files that belong to the data set"
        reasons = {
            ("hidden",): "they are hidden, like files that macOS and file servers add; rename those that "
            "contain fields of view",
            ("unknown",): unknown,
            **({("unlisted",): unlisted, ("images", "misnamed"): unlisted} if listed else {}),
        }
        return tuple(
            f"{summary}: skipped because {reason}"
            for groups, reason in reasons.items()
            for _, summary in self._summaries(*groups)
        )

    def _summaries(self, *reasons: str) -> list[tuple[str, str]]:
        """Return the kinds, sorted, each with its first file and the number of others."""
        kinds = {kind: files for reason in reasons for kind, files in self._found[reason].items()}
        return [(kind, and_more(files, kind)) for kind, files in sorted(kinds.items())]
