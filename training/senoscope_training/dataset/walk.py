"""The files in a folder and its subfolders, and the files and subfolders that are skipped."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from senoscope_client.images.image_files import (
    HARMLESS_NAMES,
    HARMLESS_SUFFIXES,
    IMAGE_SUFFIXES,
    NPY_SUFFIX,
    TIFF_SUFFIXES,
    begins_as_image,
)
from senoscope_training.dataset.faults import Fault, and_more, natural_key

SUFFIXES = TIFF_SUFFIXES | {NPY_SUFFIX, ".png"}
"""Suffixes of files that are read."""
CONVERT = "Convert it to TIFF, NPY or PNG"
_RENAME = "Rename it so that it ends in .tif, .npy or .png, or move it away"
# Folders of macOS archives, of Synology and QNAP servers, of Windows, of file systems.
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"}
)
_IMAGE_FOLDERS = frozenset({".zarr", ".n5"})  # each is one image that consists of many files


def is_readable(path: Path) -> bool:
    """Return whether the suffix or the first bytes of a file belong to a format that is read."""
    return path.suffix.lower() in SUFFIXES or begins_as_image(path)


class FolderWalk:
    """Walks through a folder once, and then reports the files and subfolders that were skipped."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._linked: list[str] = []
        self._unreadable: list[tuple[str, str]] = []
        self._folders: dict[str, list[str]] = {}
        # Names of skipped files, relative to the folder, by reason and kind.
        self._files: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))

    def files(self, *, hidden: bool = False) -> Iterator[Path]:
        """Iterate over files, and folders that are one image, in natural order.

        Links to folders are not followed.
        """
        for folder, names, files in os.walk(self._root, onerror=self._add_unreadable):
            images = [name for name in names if Path(name).suffix.lower() in _IMAGE_FOLDERS]
            names[:] = [
                name
                for name in sorted(names, key=natural_key)
                if name not in images and self._is_entered(Path(folder) / name)
            ]
            included = [name for name in files if hidden or not name.startswith(".")]
            yield from (Path(folder) / name for name in sorted([*included, *images], key=natural_key))

    def skip(self, file: str) -> None:
        """Add a skipped file, or a folder that is one image."""
        path = self._root / file
        name, suffix = path.name, path.suffix.lower()
        if name.startswith("."):
            # Most hidden files are written by operating systems; those that may be images are reported.
            if suffix in SUFFIXES | IMAGE_SUFFIXES or begins_as_image(path):
                self._files["hidden"]["hidden files"].append(file)
        elif suffix in IMAGE_SUFFIXES:
            self._files["images"][f"{suffix} files"].append(file)
        elif suffix not in SUFFIXES and begins_as_image(path):
            # Also if the suffix is harmless, as of a download that was not renamed.
            self._files["misnamed"][f"{suffix or 'such'} files"].append(file)
        elif suffix not in SUFFIXES | HARMLESS_SUFFIXES and name.casefold() not in HARMLESS_NAMES:
            self._files["unknown"][f"{suffix} files" if suffix else "files without suffix"].append(file)

    def skip_unlisted(self, file: str) -> None:
        """Add a readable file that dataset.csv does not list."""
        if Path(file).name.startswith("."):
            self.skip(file)
        else:
            self._files["unlisted"][f"{Path(file).suffix.lower()} files"].append(file)

    def faults(self) -> list[Fault]:
        """Return one fault per kind of skipped files that are certainly images, and those of folders."""
        contents = "has the contents of a TIFF, NPY or PNG file, but another suffix"
        return [
            *(
                Fault("kind", summary, f"{kind.split()[0]} is not supported", f"{CONVERT}, or move it away")
                for kind, summary in self._summaries("images")
            ),
            *(Fault("kind", summary, contents, _RENAME) for _, summary in self._summaries("misnamed")),
            *self._folder_faults(),
        ]

    def _folder_faults(self) -> list[Fault]:
        """Return faults for links to folders, and for folders that cannot be read."""
        linked = ("is a link to a folder, which is not followed", "Copy the folder here, or delete the link")
        remedy = "Check its permissions, or move it away"
        return [
            *(Fault("outside", file, *linked) for file in self._linked),
            *(Fault("corrupt", file, f"cannot be opened ({why})", remedy) for file, why in self._unreadable),
        ]

    def notes(self, *, listed: bool) -> tuple[str, ...]:
        """Return one sentence per kind of other skipped files, and of skipped folders that contain images.

        If files are ``listed`` in dataset.csv, images that it does not list, and faults of folders, are notes
        instead of faults.
        """
        unknown = "the format is unknown; convert files that contain fields of view to TIFF, NPY or PNG"
        unlisted = "not listed in dataset.csv; add rows for files that belong to the data set"
        reasons = {
            ("hidden",): "they are hidden, like files that macOS and file servers add; rename those that "
            "contain fields of view",
            ("unknown",): unknown,
            **({("unlisted",): unlisted, ("images", "misnamed"): unlisted} if listed else {}),
        }
        skipped = [
            (summary, reason) for groups, reason in reasons.items() for _, summary in self._summaries(*groups)
        ]
        advice = "move images that belong to the data set out of them"
        skipped += [
            (and_more(folders), f"they are {kind}; {advice}") for kind, folders in self._folders.items()
        ]
        return (
            *(f"{summary}: skipped because {reason}" for summary, reason in skipped),
            *(f"{fault.file}: {fault.problem}" for fault in self._folder_faults() if listed),
        )

    def _summaries(self, *reasons: str) -> list[tuple[str, str]]:
        """Return the kinds, sorted, each with its first file and the number of others."""
        kinds = {kind: files for reason in reasons for kind, files in self._files[reason].items()}
        return [(kind, and_more(files, kind)) for kind, files in sorted(kinds.items())]

    def _is_entered(self, path: Path) -> bool:
        is_system = path.name.casefold() in _SYSTEM_FOLDERS
        if is_system or path.name.startswith("."):
            if _has_images(path):
                kind = "folders of the operating system" if is_system else "hidden folders"
                self._folders.setdefault(kind, []).append(self._name(path))
            return False
        # os.walk of Python 3.11 enters junctions of Windows, that of later versions does not.
        if path.is_symlink() or getattr(path, "is_junction", bool)():
            self._linked.append(self._name(path))
            return False
        return True

    def _add_unreadable(self, error: OSError) -> None:
        self._unreadable.append((self._name(Path(error.filename)), error.strerror or str(error)))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _has_images(folder: Path) -> bool:
    return any(
        Path(name).suffix.lower() in SUFFIXES | IMAGE_SUFFIXES
        for _, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )
