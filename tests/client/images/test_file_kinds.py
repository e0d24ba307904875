"""Files that are neither TIFF nor NPY are refused with their kind and with advice."""

from __future__ import annotations

import io

import pytest

from senoscope_client import errors
from senoscope_client.images.file_kinds import detect_file_kind
from senoscope_client.images.reader import FovSpec, read_fovs

SPEC = FovSpec(("SRS", "TPEF", "Transmission"), 20, 24)
HEADS = {
    "MATLAB": b"MATLAB 7.3 MAT-file, Platform: PCWIN64, Created on: Mon Mar 06 10:00:00 2023".ljust(512)
    + b"\x89HDF\r\n\x1a\n",
    "MAT file": b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x01IM",
    "CZI": b"ZISRAWFILE\0\0\0\0\0\0",
    "SIF": b"Andor Technology Multi-Channel File\n65538 1\n",
    "OIR": b"OLYMPUSRAWFORMAT",
    "ND2": b"\xda\xce\xbe\x0a\x10\x00\x00\x00",
    "LIF": b"\x70\x00\x00\x00\x20\x00\x00\x00\x2a",
    "OIB": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "OBF": b"OMAS_BF\n\xff\xff",
    "HDF5": b"\x89HDF\r\n\x1a\n",
    "DM3": b"\x00\x00\x00\x03\x00\x00\x00\x01",
    "FITS": b"SIMPLE  =                    T",
    "ICS": b"\t\nics_version\t2.0\n",
    "NRRD": b"NRRD0004\n",
    "DICOM": bytes(128) + b"DICM",
    "NIfTI": bytes(344) + b"n+1\0",
    "JPEG 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    "JPEG": b"\xff\xd8\xff\xe0",
    "WebP": b"RIFF\x10\x00\x00\x00WEBP",
    "AVI": b"RIFF\x10\x00\x00\x00AVI LIST",
    "HEIF": b"\0\0\0\x18ftypheic",
    "safetensors": b"\x40\x00\x00\x00\x00\x00\x00\x00" + b'{"image": {}}',
    "AppleDouble": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X",
    "pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00",
    "ZIP": b"PK\x03\x04",
    "Content-Encoding: gzip": b"\x1f\x8b\x08",
    "tar": b"stack.tif".ljust(257, b"\0") + b"ustar",
    "SQLite": b"SQLite format 3\0",
    "JSON": b'{"pixels": [1, 2]}',
    "XML": b"<?xml version='1.0'?><a/>",
    "text; send": b"hello, microscope\r\n",
    "--data-binary": b"II*\x08\x01",
}


@pytest.mark.parametrize("text", HEADS)
def test_other_files_are_refused_with_kind_and_advice(text: str) -> None:
    with pytest.raises(errors.UnsupportedMediaType) as refused:
        read_fovs(io.BytesIO(HEADS[text]), SPEC, name="scan.dat")
    assert refused.value.detail.startswith("scan.dat is ")
    assert text in refused.value.detail
    what, _, advice = refused.value.detail.partition("; ")
    assert what
    assert advice
    # If the sender declares it as TIFF, it is unreadable, not of an unsupported type.
    with pytest.raises(errors.UnreadableImage, match="is declared as image/tiff, but is "):
        read_fovs(io.BytesIO(HEADS[text]), SPEC, media_type="image/tiff")


def test_unknown_bytes_have_no_kind() -> None:
    assert detect_file_kind(bytes(range(128, 256))) is None
    assert detect_file_kind(b"") is None
