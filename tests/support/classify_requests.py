"""Valid and invalid requests to ``POST /v1/classify``, with the expected answers."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from support import miniature as mini
from support.image_bytes import npy, tiff

NAMES = ["SRS", "TPEF", "Transmission"]


BY_TURNS = ["senescent", "control"] * 2


BAD_PICTURES = [
    ("/v1/results/0197c9a0-0000-7000-8000-000000000000/gradcam.png", {}, 404, "not_found"),
    ("/v1/results/nonsense/gradcam.png", {}, 422, "invalid_request"),
    ("{href}", {"network": "vgg"}, 422, "invalid_request"),
    ("{href}", {"channel": "CARS", "style": "overlay"}, 422, "invalid_request"),
    ("{href}", {"style": "fancy"}, 422, "invalid_request"),
    ("{href}", {"styel": "map"}, 422, "invalid_request"),
]


def form(body: bytes, filename: bytes, charset: str = "utf-8") -> dict:
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' % filename
    media_type = f"multipart/form-data; boundary=x; charset={charset}"
    return {"content": head + body + b"\r\n--x--\r\n", "headers": {"Content-Type": media_type}}


def containers(fovs: np.ndarray) -> dict[str, bytes]:
    one = fovs[0]
    ome = {"axes": "TCYX", "Channel": {"Name": NAMES}}
    swapped = np.ascontiguousarray(fovs[:, [2, 0, 1]])
    return {
        "plain": tiff(fovs, metadata={"axes": "TCYX"}),
        "lzw": tiff(fovs, metadata={"axes": "TCYX"}, compression="lzw"),
        "deflate": tiff(fovs, metadata={"axes": "TCYX"}, compression="zlib", predictor=True),
        "bigtiff": tiff(fovs, metadata={"axes": "TCYX"}, bigtiff=True),
        "tiled": tiff(fovs, metadata={"axes": "TCYX"}, tile=(64, 64)),
        "big-endian": tiff(fovs.astype(">u2"), metadata={"axes": "TCYX"}, byteorder=">"),
        "ome": tiff(fovs, ome=True, metadata=ome),
        "ome, channels in another order": tiff(
            swapped, ome=True, metadata={"axes": "TCYX", "Channel": {"Name": ["Transmission", "SRS", "TPEF"]}}
        ),
        "imagej": tiff(fovs, imagej=True, metadata={"axes": "TCYX"}),
        "planar": tiff(one, planarconfig="separate", metadata={"axes": "CYX"}),
        "npy": npy(fovs),
        "npy, Fortran order": npy(np.asfortranarray(fovs)),
        "npy, float32": npy(fovs.astype(np.float32)),
    }


def _object_npy() -> bytes:
    return npy(np.array([{"a": 1}, None], dtype=object), allow_pickle=True)


def _with_nan() -> np.ndarray:
    fov = mini.dark().astype(np.float32)
    fov[1, 5, 5] = np.nan
    return fov


def _bool_shape() -> bytes:
    header = b"{'descr': '<u2', 'fortran_order': False, 'shape': (True, 3, 250, 300), }\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(450_000)


def _bomb() -> bytes:
    zeros = np.zeros((445, 3, 250, 300), np.float32)
    return tiff(zeros, compression="zlib", metadata={"axes": "TCYX"})


@dataclass(frozen=True)
class Bad:
    """A body that must be refused, and the expected answer."""

    name: str
    make: object
    status: int
    code: str
    media_type: str = "image/tiff"
    params: tuple[tuple[str, str], ...] = ()


BAD = [
    Bad("text that says it is TIFF", lambda: b"hello, microscope", 422, "unreadable_image"),
    Bad("text", lambda: b"hello, microscope", 415, "unsupported_media_type", "text/plain"),
    Bad(
        "PNG",
        cv2.imencode(".png", mini.dark()[0].astype(np.uint8))[1].tobytes,
        415,
        "unsupported_media_type",
        "image/png",
    ),
    Bad("empty body", lambda: b"", 422, "unreadable_image"),
    Bad("truncated TIFF", lambda: tiff(mini.dark())[:200_000], 422, "unreadable_image"),
    Bad("truncated NPY", lambda: npy(mini.dark())[:200_000], 422, "unreadable_image", "application/x-npy"),
    Bad("2 channels", lambda: tiff(mini.dark(2), metadata={"axes": "CYX"}), 422, "wrong_channel_count"),
    Bad("4 channels", lambda: tiff(mini.dark(4), metadata={"axes": "CYX"}), 422, "wrong_channel_count"),
    Bad("512x512", lambda: tiff(mini.dark(3, 512, 512), metadata={"axes": "CYX"}), 422, "wrong_frame_size"),
    Bad("NaN", lambda: tiff(_with_nan(), metadata={"axes": "CYX"}), 422, "non_finite_pixels"),
    Bad("object dtype", _object_npy, 422, "unreadable_image", "application/x-npy"),
    Bad("True in a shape", _bool_shape, 422, "unreadable_image", "application/x-npy"),
    Bad(
        "form with a field",
        lambda: (
            b'--x\r\nContent-Disposition: form-data; name="channels"\r\n\r\nTPEF\r\n'
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nb\r\n--x--\r\n'
        ),
        422,
        "invalid_request",
        "multipart/form-data; boundary=x",
    ),
    Bad("bare pages", lambda: tiff(mini.dark(6)), 422, "ambiguous_axes"),
    Bad("400 kB that declare 400 MB", _bomb, 413, "payload_too_large"),
    Bad(
        "600 FOVs",
        lambda: tiff(np.zeros((600, 3, 250, 300), np.uint8), compression="zlib", metadata={"axes": "TCYX"}),
        413,
        "too_many_fields",
    ),
    Bad("unknown parameter", lambda: npy(mini.dark()), 422, "invalid_request", params=(("cams", "png"),)),
    Bad("bad parameter", lambda: npy(mini.dark()), 422, "invalid_request", params=(("cam", "gif"),)),
    Bad("bad axes", lambda: npy(mini.dark()), 422, "invalid_request", params=(("axes", "XXQ"),)),
    Bad("form without file", lambda: b"--x--\r\n", 422, "invalid_request", "multipart/form-data; boundary=x"),
    Bad("broken form", lambda: b"nonsense", 422, "invalid_request", "multipart/form-data; boundary=x"),
    Bad("form without boundary", lambda: b"nonsense", 422, "invalid_request", "multipart/form-data"),
]


WRONG_ADDRESSES = [
    ("GET", "/v1/classify", 405, "method_not_allowed"),
    ("GET", "/v1/nowhere", 404, "not_found"),
    ("DELETE", "/v1/model", 405, "method_not_allowed"),
]
