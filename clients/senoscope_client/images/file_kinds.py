"""Detection of the kind of a file by its first bytes, with advice for files that are neither TIFF nor NPY."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_SAVE: Final = "save the counts as TIFF or NPY"
_FIJI: Final = "open it in Fiji (Bio-Formats) and save it as OME-TIFF or TIFF"
_EXPORT: Final = "export the channels as 16-bit TIFF, or open it in Fiji (Bio-Formats) and save it as TIFF"
_RENDERED: Final = "a picture for display is not detector counts: save the counts as TIFF or NPY"
_MATLAB: Final = "in MATLAB, write the array with imwrite or the class Tiff, or in Python with numpy.save"
_UNPACK: Final = "unpack it, and send the TIFF or NPY file in it"


@dataclass(frozen=True)
class FileKind:
    """A kind of file that is not read.

    Attributes
    ----------
    what : str
        Name of the kind, with its article.
    advice : str
        How to convert the file into one that is read.
    """

    what: str
    advice: str


_HDF5: Final = FileKind("an HDF5 file", "save the array of counts in it as TIFF or NPY")
_HDF5_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
_PICKLE: Final = FileKind("a Python pickle, which is never opened", "save the array with numpy.save")
# Each kind with the offset of its signatures; of two that begin alike, the longer is first.
_KINDS: Final[tuple[tuple[FileKind, int, tuple[bytes, ...]], ...]] = (
    (FileKind("a MATLAB MAT file", _MATLAB), 0, (b"MATLAB 7.3 MAT-file", b"MATLAB 5.0 MAT-file")),
    (FileKind("a Zeiss CZI file", _EXPORT), 0, (b"ZISRAWFILE",)),
    (FileKind("an Andor SIF file", _EXPORT), 0, (b"Andor Technology Multi-Channel File",)),
    (FileKind("an Olympus OIR file", _EXPORT), 0, (b"OLYMPUSRAWFORMAT",)),
    (FileKind("a Nikon ND2 file", _EXPORT), 0, (b"\xda\xce\xbe\x0a",)),
    (FileKind("a Leica LIF file", _EXPORT), 0, (b"\x70\x00\x00\x00",)),
    (FileKind("a Leica LOF file", _EXPORT), 0, (b"LMSDataContainerHeader",)),
    (FileKind("an Imspector OBF file", _EXPORT), 0, (b"OMAS_BF",)),
    (FileKind("a NetCDF file", _SAVE), 0, (b"CDF\x01", b"CDF\x02")),
    (_HDF5, 0, (_HDF5_MAGIC,)),
    (
        FileKind("an OLE container, such as an Olympus OIB or Zeiss ZVI file", _EXPORT),
        0,
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",),
    ),
    (
        FileKind(
            "macOS metadata of another file (AppleDouble, ._NAME)", "send the file whose name has no ._"
        ),
        0,
        (b"\x00\x05\x16\x07",),
    ),
    (
        FileKind("a file combined with its macOS metadata (AppleSingle)", "send the file without them"),
        0,
        (b"\x00\x05\x16\x00",),
    ),
    (FileKind("a PNG image", _RENDERED), 0, (b"\x89PNG",)),
    (FileKind("a JPEG image", _RENDERED), 0, (b"\xff\xd8\xff",)),
    (FileKind("a JPEG 2000 image", _RENDERED), 0, (b"\x00\x00\x00\x0cjP  ", b"\xff\x4f\xff\x51")),
    (FileKind("a GIF image", _RENDERED), 0, (b"GIF8",)),
    (FileKind("a BMP image", _RENDERED), 0, (b"BM",)),
    (FileKind("a FITS file", _SAVE), 0, (b"SIMPLE  =",)),
    (FileKind("an ICS file", _FIJI), 0, (b"\t\nics_version", b"ics_version")),
    (FileKind("an NRRD file", _FIJI), 0, (b"NRRD000",)),
    (FileKind("a Gatan DM3 file", _EXPORT), 0, (b"\x00\x00\x00\x03\x00\x00\x00",)),
    (FileKind("a Gatan DM4 file", _EXPORT), 0, (b"\x00\x00\x00\x04\x00\x00\x00",)),
    (FileKind("a PDF document", _SAVE), 0, (b"%PDF",)),
    (FileKind("a ZIP archive (NPZ, XLSX and DOCX files are, too)", _UNPACK), 0, (b"PK\x03\x04",)),
    (FileKind("a gzip file", "unpack it, or send it with Content-Encoding: gzip"), 0, (b"\x1f\x8b",)),
    (FileKind("an XZ file", _UNPACK), 0, (b"\xfd7zXZ\x00",)),
    (FileKind("a bzip2 file", _UNPACK), 0, (b"BZh",)),
    (FileKind("a Zstandard file", _UNPACK), 0, (b"\x28\xb5\x2f\xfd",)),
    (FileKind("a 7-Zip archive", _UNPACK), 0, (b"7z\xbc\xaf\x27\x1c",)),
    (FileKind("a RAR archive", _UNPACK), 0, (b"Rar!",)),
    (FileKind("a Parquet file", _SAVE), 0, (b"PAR1",)),
    (FileKind("an SQLite database", _SAVE), 0, (b"SQLite format 3",)),
    (_PICKLE, 0, (b"\x80\x04\x95", b"\x80\x05\x95", b"\x80\x03", b"\x80\x02")),
    (FileKind("a WebP image", _RENDERED), 8, (b"WEBP",)),
    (FileKind("a video or HEIF picture", _RENDERED), 4, (b"ftyp",)),
    (FileKind("an AVI video", _RENDERED), 8, (b"AVI ",)),
    (FileKind("a tar archive", _UNPACK), 257, (b"ustar",)),
    (_HDF5, 512, (_HDF5_MAGIC,)),
    (FileKind("a NIfTI file", _SAVE), 344, (b"n+1\x00",)),
    (FileKind("a DICOM file", _FIJI), 128, (b"DICM",)),
    (FileKind("an MRC file", _FIJI), 208, (b"MAP ",)),
)
_TEXT_BYTES: Final = 64


def detect_file_kind(head: bytes) -> FileKind | None:
    """Return the kind of a file from its first bytes, some hundred; None if the kind is not known."""
    for kind, offset, signatures in _KINDS:
        if head.startswith(signatures, offset):
            return kind
    # The first eight bytes are the length of the JSON that follows.
    if len(head) > 10 and head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 2**32:
        return FileKind("a safetensors file", "save the array with numpy.save")
    return _detect_text(head)


def _detect_text(head: bytes) -> FileKind | None:
    start = head[:_TEXT_BYTES]
    if _TIFF_WITHOUT_LINE_ENDS.match(head):
        return FileKind(
            "a TIFF file from which line ends and zeros were removed in transfer",
            "send it unchanged, with `curl --data-binary @FILE` instead of -d",
        )
    if not start or not start.isascii() or not start.decode().translate(_BLANKS).isprintable():
        return None
    if start.lstrip()[:1] in (b"{", b"["):
        return FileKind("JSON", "send the TIFF or NPY file itself")
    if start.lstrip()[:1] == b"<":
        return FileKind("XML or HTML", "send the TIFF or NPY file itself")
    return FileKind("text", "send TIFF or NPY")


_TIFF_WITHOUT_LINE_ENDS: Final = re.compile(rb"(II[*+]|MM[*+])(?!\0)")
_BLANKS: Final = str.maketrans("\n\r\t", "   ")
