"""Kinds of files by name: files that are read, other image files, and files without images."""

from __future__ import annotations

from pathlib import Path
from typing import Final

TIFF_SUFFIXES: Final = frozenset(
    {
        *(".tif", ".tiff", ".btf", ".tf2", ".tf8", ".ptif", ".ptiff"),
        *(".stk", ".lsm", ".flex", ".qptiff"),  # MetaMorph, Zeiss, Opera, Vectra: TIFF under another name
    }
)
NPY_SUFFIX: Final = ".npy"
TIFF_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NPY_MAGIC: Final = b"\x93NUMPY"
IMAGE_SUFFIXES: Final = frozenset(
    {
        # Pictures
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".jpx", ".bmp", ".gif", ".webp"),
        *(".heic", ".avif", ".ppm", ".pgm", ".pbm", ".pcx", ".tga", ".psd", ".dng", ".exr"),
        # Microscopes
        *(".czi", ".zvi", ".lif", ".lof", ".xlif", ".nd2", ".oib", ".oif", ".oir", ".poir", ".vsi", ".ets"),
        *(".ims", ".obf", ".msr", ".sld", ".sldy", ".dv", ".r3d", ".ids", ".ics", ".ipl", ".seq", ".xdce"),
        *(".svs", ".scn", ".ndpi", ".mrxs", ".bif", ".c01", ".dib", ".gel"),
        # Detectors, spectra, lifetimes
        *(".sif", ".spe", ".spc", ".dm3", ".dm4", ".mrc", ".emd", ".ser", ".wdf", ".sdt", ".ptu", ".pt3"),
        # Arrays and volumes
        *(".npz", ".mat", ".h5", ".hdf5", ".hdf", ".he5", ".nc", ".zarr", ".n5"),
        *(".nii", ".nrrd", ".mha", ".mhd", ".dcm", ".dicom", ".fits", ".fit", ".fts"),
        # Films
        *(".avi", ".mp4", ".mov", ".mkv", ".wmv", ".fli"),
    }
)
"""Suffixes of image files that are not read by all parts of Senoscope."""
HARMLESS_SUFFIXES: Final = frozenset(
    {
        *(".txt", ".csv", ".tsv", ".md", ".rst", ".pdf", ".rtf", ".doc", ".docx", ".odt", ".xls", ".xlsx"),
        *(".ods", ".json", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml", ".log", ".html", ".htm"),
        *(".py", ".ipynb", ".m", ".r", ".ijm", ".sh", ".bat", ".cppipe", ".roi", ".lnk", ".url", ".part"),
        ".tmp",
    }
)
HARMLESS_NAMES: Final = frozenset(
    {"thumbs.db", "desktop.ini", "license", "licence", "readme", "changelog", "makefile"}
)
"""Names of files that hold no image, in lower case."""


def begins_as_image(path: Path) -> bool:
    """Return whether a file begins like a TIFF, NPY or PNG file; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(8).startswith((*TIFF_MAGIC, NPY_MAGIC, b"\x89PNG"))
    except OSError:
        return False
