"""Which files of a folder are read, which may be passed over, and which would be lost in silence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from senoscope_training.dataset.faults import Fault

_TIFF_SUFFIXES = (
    *(".tif", ".tiff", ".btf", ".tf2", ".tf8", ".ptif", ".ptiff"),
    *(".stk", ".lsm", ".flex", ".qptiff"),  # MetaMorph, Zeiss, Opera, Vectra: TIFF under another name
)
SUFFIXES = frozenset({*_TIFF_SUFFIXES, ".npy", ".png"})
"""Of files that are read."""

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x93NUMPY", b"\x89PNG")
# Kinds that hold images and are not read: to pass over them would lose fields of view.
_IMAGES = frozenset(
    {
        # Pictures
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".jp2",
            ".j2k",
            ".jpx",
            ".bmp",
            ".gif",
            ".webp",
            ".heic",
            ".avif",
        ),
        *(".ppm", ".pgm", ".pbm", ".pcx", ".tga", ".psd", ".dng", ".exr"),
        # Microscopes
        *(".czi", ".zvi", ".lif", ".lof", ".xlif", ".nd2", ".oib", ".oif", ".oir", ".poir", ".vsi", ".ets"),
        *(".ims", ".obf", ".msr", ".sld", ".sldy", ".dv", ".r3d", ".ids", ".ics", ".ipl", ".seq", ".xdce"),
        *(".svs", ".scn", ".ndpi", ".mrxs", ".bif", ".c01", ".dib", ".gel"),
        # Detectors, spectra, lifetimes
        *(
            ".sif",
            ".spe",
            ".spc",
            ".dm3",
            ".dm4",
            ".mrc",
            ".emd",
            ".ser",
            ".wdf",
            ".sdt",
            ".ptu",
            ".pt3",
            ".fli",
        ),
        # Arrays and volumes
        *(".npz", ".mat", ".h5", ".hdf5", ".hdf", ".he5", ".nc", ".zarr", ".n5"),
        *(".nii", ".nrrd", ".mha", ".mhd", ".dcm", ".dicom", ".fits", ".fit", ".fts"),
        # Films
        *(".avi", ".mp4", ".mov", ".mkv", ".wmv"),
    }
)
_HARMLESS = frozenset(
    {
        *(
            ".txt",
            ".csv",
            ".tsv",
            ".md",
            ".rst",
            ".pdf",
            ".rtf",
            ".doc",
            ".docx",
            ".odt",
            ".xls",
            ".xlsx",
            ".ods",
        ),
        *(".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml", ".log", ".html", ".htm"),
        *(
            ".py",
            ".ipynb",
            ".m",
            ".r",
            ".ijm",
            ".sh",
            ".bat",
            ".cppipe",
            ".roi",
            ".lnk",
            ".url",
            ".part",
            ".tmp",
        ),
    }
)
_HARMLESS_NAMES = frozenset(
    {"thumbs.db", "desktop.ini", "license", "licence", "readme", "changelog", "makefile"}
)
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
    return path.suffix.lower() in SUFFIXES or _begins_as_image(path)


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
            if suffix in SUFFIXES | _IMAGES:
                _put(self._hidden, "hidden files", file)
        elif suffix in _IMAGES:
            _put(self._images, f"{suffix} files", file)
        elif suffix in _HARMLESS or name.casefold() in _HARMLESS_NAMES:
            return
        elif suffix not in SUFFIXES and _begins_as_image(path):
            _put(self._disguised, f"{suffix or 'such'} files", file)
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


def _begins_as_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8).startswith(_MAGIC)
    except OSError:
        return False
