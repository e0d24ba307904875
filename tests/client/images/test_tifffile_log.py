"""Reading a file logs nothing: the messages of tifffile quote untrusted text of the file."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
import tifffile

from senoscope_client import errors
from senoscope_client.images.reader import FovSpec, open_fovs
from support.crafted_tiff import Tags, crafted, description, one_page
from support.image_bytes import tiff

H, W = 20, 24
SPEC = FovSpec(("SRS", "TPEF", "Transmission"), H, W)
TEXT = "raw\x1b[31m text"


def with_tags(more: Tags) -> bytes:
    return crafted(one_page(W, H) | more, pages=3)


LOGGED: dict[str, Callable[[], bytes]] = {
    "type of a tag": lambda: with_tags({65000: (99, 4, 1)}),
    "offset of a tag": lambda: with_tags({65000: (2, 400, 2**31)}),
    "text that is not ASCII": lambda: with_tags({305: (2, 9, b"\xff\xfe" + TEXT.encode()[:7])}),
    "metadata of ImageJ": lambda: with_tags(
        description("ImageJ=1.54f\nimages=3\nchannels=3\n")
        | {50838: (4, 2, struct.pack("<2I", 12, 7)), 50839: (1, 19, b"IJIJlabl" + bytes(11))}
    ),
    "metadata of GDAL": lambda: with_tags({42113: (2, 10, TEXT.encode()[:10]), 34735: (3, 8, bytes(16))}),
    "damaged pixels": lambda: tiff(
        np.zeros((3, H, W), np.uint16), compression="zlib", metadata={"axes": "CYX"}
    ).replace(b"\x78\x9c", b"\x00\x00"),
}


@pytest.mark.parametrize("kind", LOGGED)
def test_reading_a_file_logs_nothing(kind: str, caplog: pytest.LogCaptureFixture, capfd) -> None:
    body = LOGGED[kind]()
    with caplog.at_level(logging.DEBUG, logger="tifffile"):
        with suppress(errors.SenoscopeError), open_fovs(io.BytesIO(body), SPEC) as stack:
            stack.read(0)
        assert [record.getMessage() for record in caplog.records if record.name == "tifffile"] == []
    assert capfd.readouterr().err == ""


def test_other_users_of_tifffile_keep_its_log(caplog: pytest.LogCaptureFixture) -> None:
    body = LOGGED["type of a tag"]()
    with caplog.at_level(logging.DEBUG, logger="tifffile"), open_fovs(io.BytesIO(body), SPEC):
        with tifffile.TiffFile(io.BytesIO(body)) as file:
            file.pages[0]
        assert any(record.name == "tifffile" for record in caplog.records)
