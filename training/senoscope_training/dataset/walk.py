"""The files below a folder, and what of it is not looked at: links, hidden folders, those of systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from senoscope_client.images.image_files import IMAGE_SUFFIXES
from senoscope_training.dataset.faults import Fault, natural
from senoscope_training.dataset.kinds import SUFFIXES, is_folder_of_pixels

# Of archives from Macs, of Synology and QNAP servers, of Windows, of file systems.
_SYSTEM = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"}
)


class FolderWalk:
    """Walks through a folder once; what was left out is known afterwards.

    Parameters
    ----------
    root : Path
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._linked: list[str] = []
        self._unread: list[tuple[str, str]] = []
        self._left_out: dict[str, list[str]] = {}

    def files(self, *, hidden: bool = False) -> Iterator[Path]:
        """Files in natural order, and folders that are one image; hidden files if asked for.

        Links to folders are not followed.
        """
        for folder, names, files in os.walk(self._root, onerror=self._failed):
            pixels = [name for name in names if is_folder_of_pixels(name)]
            names[:] = [
                name
                for name in sorted(names, key=natural)
                if name not in pixels and self._is_entered(Path(folder) / name)
            ]
            shown = [name for name in files if hidden or not name.startswith(".")]
            yield from (Path(folder) / name for name in sorted([*shown, *pixels], key=natural))

    def faults(self) -> list[Fault]:
        """Links to folders, and folders that cannot be read."""
        linked = "is a link to a folder, which is not followed"
        found = [
            Fault("outside", file, linked, "Copy the folder here, or delete the link")
            for file in self._linked
        ]
        found += [
            Fault("corrupt", file, f"cannot be looked into ({why})", "Check its permissions, or move it away")
            for file, why in self._unread
        ]
        return found

    def notes(self, *, listed: bool) -> tuple[str, ...]:
        """What is said of folders with images that are left out, one sentence per kind.

        Parameters
        ----------
        listed : bool
            Whether a table says what counts: what is a fault otherwise is noted then.
        """
        found = []
        for kind, files in self._left_out.items():
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            advice = "move images that belong to the data set out of them"
            found.append(f"{files[0]}{more}: not read, for they are {kind}; {advice}")
        if listed:
            found += [f"{fault.file}: {fault.problem}" for fault in self.faults()]
        return tuple(found)

    def _is_entered(self, path: Path) -> bool:
        system = path.name.casefold() in _SYSTEM
        if system or path.name.startswith("."):
            if _has_images(path):
                kind = "folders of the system" if system else "hidden folders"
                self._left_out.setdefault(kind, []).append(self._name(path))
            return False
        # Python 3.11 enters junctions of Windows, 3.12 and later do not.
        if path.is_symlink() or getattr(path, "is_junction", bool)():
            self._linked.append(self._name(path))
            return False
        return True

    def _failed(self, error: OSError) -> None:
        self._unread.append((self._name(Path(error.filename)), error.strerror or str(error)))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _has_images(folder: Path) -> bool:
    return any(
        Path(name).suffix.lower() in SUFFIXES | IMAGE_SUFFIXES
        for _, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )
