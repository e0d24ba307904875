"""Messages of a frame publisher that the service must reject, with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from support import miniature as mini
from support.raw_microscope import NAMES, Microscope


def _json(message: list, change: Callable[[dict], object]) -> list:
    header = json.loads(bytes(message[1]))
    change(header)
    return [message[0], json.dumps(header).encode(), *message[2:]]


def _nan() -> np.ndarray:
    fov = mini.dark().astype(np.float32)
    fov[0, 0, 0] = np.nan
    return fov


BAD_MESSAGES: list[tuple[str, Callable[[Microscope], list]]] = [
    ("part_count", lambda m: m.frame(1)[:2]),
    ("part_count", lambda m: [*m.frame(1), b"more"]),
    ("part_count", lambda m: m.frame(1)[:1]),
    ("bad_topic", lambda m: [b"fov/x", *m.frame(1)[1:]]),
    ("topic_mismatch", lambda m: [b"fov/other/image", *m.frame(1)[1:]]),
    ("bad_json", lambda m: [m.frame(1)[0], b"{not json", m.frame(1)[2]]),
    ("bad_json", lambda m: [m.frame(1)[0], b"\xff\xfe", m.frame(1)[2]]),
    ("bad_header", lambda m: _json(m.frame(1), lambda h: h.pop("frame"))),
    ("bad_header", lambda m: _json(m.frame(1), lambda h: h.update(fraem=1))),
    ("bad_header", lambda m: _json(m.frame(1), lambda h: h.update(frame=-1))),
    ("unknown_version", lambda m: _json(m.frame(1), lambda h: h.update(version="2.0"))),
    ("unknown_format", lambda m: _json(m.frame(1), lambda h: h.update(format="tiff"))),
    ("byte_count", lambda m: [*m.frame(1)[:2], bytes(10)]),
    ("byte_count", lambda m: _json(m.frame(1), lambda h: h.update(shape=[3, 251, 300]))),
    ("dtype_not_allowed", lambda m: _json(m.frame(1), lambda h: h.update(dtype="complex64"))),
    ("series_of_another_instrument", lambda m: m.frame(1, instrument="nlo-2")),
    ("wrong_frame_size", lambda m: m.frame(1, mini.bright(3, 300, 250))),
    ("wrong_channels", lambda m: m.frame(1, channels=("SRS", "CARS", "Transmission"))),
    ("wrong_channels", lambda m: m.frame(1, mini.bright(2), channels=NAMES[:2])),
    ("non_finite_pixels", lambda m: m.frame(1, _nan())),
]
