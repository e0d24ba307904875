"""The files in a folder and its subfolders, and the subfolders that are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from senoscope_client.images.image_files import IMAGE_SUFFIXES
from senoscope_training.dataset.faults import Fault, and_more, natural_key
from senoscope_training.dataset.kinds import SUFFIXES, is_image_folder

# Folders of macOS archives, of Synology and QNAP servers, of Windows, of file systems.
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"}
)


class FolderWalk:
    """Walks through a folder once, and then reports the subfolders that were skipped."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._linked: list[str] = []
        self._unreadable: list[tuple[str, str]] = []
        self._skipped: dict[str, list[str]] = {}

    def files(self, *, hidden: bool = False) -> Iterator[Path]:
        """Iterate over files, and folders that are one image, in natural order.

        Links to folders are not followed.
        """
        for folder, names, files in os.walk(self._root, onerror=self._add_unreadable):
            images = [name for name in names if is_image_folder(name)]
            names[:] = [
                name
                for name in sorted(names, key=natural_key)
                if name not in images and self._is_entered(Path(folder) / name)
            ]
            included = [name for name in files if hidden or not name.startswith(".")]
            yield from (Path(folder) / name for name in sorted([*included, *images], key=natural_key))

    def faults(self) -> list[Fault]:
        """Return faults for links to folders, and for folders that cannot be read."""
        linked = ("is a link to a folder, which is not followed", "Copy the folder here, or delete the link")
        remedy = "Check its permissions, or move it away"
        return [
            *(Fault("outside", file, *linked) for file in self._linked),
            *(Fault("corrupt", file, f"cannot be opened ({why})", remedy) for file, why in self._unreadable),
        ]

    def notes(self, *, listed: bool) -> tuple[str, ...]:
        """Return one sentence per kind of skipped folders that contain images.

        Parameters
        ----------
        listed : bool
            Whether there is a dataset.csv: `faults` are then notes.
        """
        advice = "move images that belong to the data set out of them"
        found = (
            f"{and_more(folders)}: skipped because they are {kind}; {advice}"
            for kind, folders in self._skipped.items()
        )
        return (*found, *(f"{fault.file}: {fault.problem}" for fault in self.faults() if listed))

    def _is_entered(self, path: Path) -> bool:
        is_system = path.name.casefold() in _SYSTEM_FOLDERS
        if is_system or path.name.startswith("."):
            if _has_images(path):
                kind = "folders of the operating system" if is_system else "hidden folders"
                self._skipped.setdefault(kind, []).append(self._name(path))
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
