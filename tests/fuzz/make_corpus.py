"""Write ``corpus/``: what fuzzing begins with. Run from the repository: ``python tests/fuzz/make_corpus.py``.

Files named ``regression-*`` are what it once found; they are written by hand and left alone.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import tifffile

FOLDER = Path(__file__).parent / "corpus"
sys.path.insert(0, str(Path(__file__).parents[1]))

from client.vectors.regenerate import files, messages  # noqa: E402
from fuzz.targets import SPEC, TOLD, joined  # noqa: E402
from support.crafted_tiff import crafted, description, ome_xml, one_page  # noqa: E402

_NAMES = list(SPEC.channels)


def _tiff(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **({"photometric": "minisblack"} | options))
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _pyramid(stack: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(stack, photometric="minisblack", metadata={"axes": "TCYX"}, subifds=1)
        writer.write(stack[..., ::2, ::2], photometric="minisblack", subfiletype=1)
    return buffer.getvalue()


def images() -> dict[str, bytes]:
    """By name, an input of `fuzz.targets.check_image`."""
    height, width = SPEC.height, SPEC.width
    stack = np.random.default_rng(0).integers(0, 4096, (2, 3, height, width), dtype=np.uint16)
    one, last = stack[0], np.ascontiguousarray(np.moveaxis(stack, 1, -1))
    tcyx = {"metadata": {"axes": "TCYX"}}
    named = {"axes": "TCYX", "Channel": {"Name": _NAMES[::-1]}}
    bodies = {
        "plain": _tiff(stack, **tcyx),
        "shaped_names": _tiff(stack, metadata=named),
        "lzw": _tiff(stack, compression="lzw", **tcyx),
        "deflate_predictor": _tiff(stack, compression="zlib", predictor=True, **tcyx),
        "zstd": _tiff(stack, compression="zstd", **tcyx),
        "packbits": _tiff(stack.astype("u1"), compression="packbits", **tcyx),
        "bigtiff": _tiff(stack, bigtiff=True, **tcyx),
        "big_endian": _tiff(stack.astype(">u2"), byteorder=">", **tcyx),
        "tiled": _tiff(stack, tile=(16, 16), **tcyx),
        "strips": _tiff(stack, rowsperstrip=2, compression="lzw", **tcyx),
        "float": _tiff(stack.astype("f4"), **tcyx),
        "imagej": _tiff(stack, imagej=True, metadata={"axes": "TCYX", "Labels": _NAMES * 2}),
        "ome": _tiff(stack, ome=True, metadata=named),
        "one": _tiff(one, metadata={"axes": "CYX"}),
        "bare_pages": _tiff(one, metadata=None),
        "planar": _tiff(one, photometric="rgb", planarconfig="separate"),
        "interleaved": _tiff(last[0], photometric="rgb"),
        "pyramid": _pyramid(stack),
        "crafted": crafted(one_page(width, height), pages=3),
        "crafted_ome": crafted(one_page(width, height) | description(ome_xml(width, height)), pages=3),
        "crafted_shaped": crafted(
            one_page(width, height) | description(f'{{"shape": [3, {height}, {width}], "axes": "CYX"}}'),
            pages=3,
        ),
        "npy": _npy(stack),
        "npy_float64": _npy(stack.astype("f8")),
        "npy_fortran": _npy(np.asfortranarray(stack)),
        "npy_last": _npy(last),
        "npy_int8": _npy(one.astype("i1")),
        "png": b"\x89PNG\r\n\x1a\n12345",
        "text": b"no image",
    }
    inputs = {name: b"\0" + body for name, body in bodies.items()}
    inputs |= {f"told_{n}": bytes([n]) + bodies["bare_pages"] for n in range(1, len(TOLD))}
    return inputs


def wire() -> dict[str, bytes]:
    """By name, an input of `fuzz.targets.check_wire`."""
    recorded = files()
    parts = ("topic", "header.json", "pixels.bin")
    return {
        name: joined([recorded[f"{name}.{part}"] for part in parts if f"{name}.{part}" in recorded])
        for name in messages()
    }


if __name__ == "__main__":
    for kind, made in (("images", images()), ("wire", wire())):
        (FOLDER / kind).mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            (FOLDER / kind / name).write_bytes(data)
