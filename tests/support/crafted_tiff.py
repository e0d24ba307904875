"""Invalid or unusual TIFF files, with any values of their tags."""

from __future__ import annotations

import struct
import zlib

# By tag: type, count, and the value or, if it does not fit into the tag, its bytes.
Tags = dict[int, tuple[int, int, int | bytes]]


def one_page(width: int, height: int) -> Tags:
    """Return the tags of an uncompressed uint16 page whose pixels begin at byte 8."""
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    return {tag: (4, 1, value) for tag, value in tags.items()} | {279: (4, 1, 2 * width * height)}


def description(text: str) -> Tags:
    data = text.encode() + b"\0"
    return {270: (2, len(data), data)}


def zeros_in_one_go(length: int) -> Tags:
    """Return the tags of a strip of zeros compressed with Deflate, which `crafted` stores with the values."""
    packer = zlib.compressobj(9)
    pieces = [packer.compress(bytes(min(1 << 20, length - at))) for at in range(0, length, 1 << 20)]
    packed = b"".join(pieces) + packer.flush()
    return {259: (3, 1, 8), 273: (7, len(packed), packed), 279: (4, 1, len(packed))}


def ome_xml(width: int, height: int, *, t: int = 1, data: str = "<TiffData/>", more: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="{width}" SizeY="{height}" '
        f'SizeC="3" SizeZ="1" SizeT="{t}">{data}</Pixels></Image>{more}</OME>'
    )


def crafted(tags: Tags, *, pages: int = 1) -> bytes:
    """Return a little-endian TIFF of pages with the same tags, which share their pixels and values."""
    width, height = (tags[tag][2] for tag in (256, 257))
    assert isinstance(width, int)
    assert isinstance(height, int)
    file = bytearray(b"II*\0\0\0\0\0" + bytes(2 * width * height))
    entries = []
    for tag, (kind, count, value) in sorted(tags.items()):
        if not isinstance(value, bytes):
            entries.append(struct.pack("<HHII", tag, kind, count, value))
        else:
            # The tag of a strip contains its offset; other tags contain the offset of their values.
            kind_, count_ = (4, 1) if tag == 273 and kind == 7 else (kind, count)
            entries.append(struct.pack("<HHII", tag, kind_, count_, len(file)))
            file += value + b"\0" * (len(value) % 2)
    link = 4
    for _ in range(pages):
        struct.pack_into("<I", file, link, len(file))
        file += struct.pack("<H", len(entries)) + b"".join(entries)
        link = len(file)
        file += bytes(4)
    return bytes(file)
