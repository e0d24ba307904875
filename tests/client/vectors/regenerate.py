"""Messages for testing clients in other languages, and a script that writes them to files.

``python tests/client/vectors/regenerate.py`` writes, into the folder of this script, the parts of each
message (``<name>.topic``, ``<name>.header.json``, ``<name>.pixels.bin``) and ``expected.json``, which
contains what a receiver must decode from them. JSON does not define blanks and the order of keys: a publisher
in another language need not write the same bytes, but must be able to read these.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from senoscope_client.wire.messages import (
    EndHeader,
    HeartbeatHeader,
    ImageHeader,
    Index,
    Message,
    Mosaic,
    Position,
    StartHeader,
    Timestamp,
    encode,
)

FOLDER = Path(__file__).parent
_SERIES: dict[str, Any] = {
    "instrument": "nlo-1",
    "series_id": "plate 3, well B2 (80 µm)",
    "series_uid": UUID("0192f0c1-7a4e-7cc3-98c4-dc0c0c07398f"),
}
_ANNOUNCED: dict[str, Any] = {
    **_SERIES,
    "planned_frames": 48,
    "mosaic": Mosaic(rows=6, columns=8),
    "pump_wavelength_nm": 798.0,
    "stokes_wavelength_nm": 1032.5,
    "wavenumber_cm1": 2850.0,
    "user_data": {"operator": "T. Est", "passage": 12},
}


def _image(frame: int, pixels: np.ndarray, **more: Any) -> Message:
    header = ImageHeader(
        **_SERIES,
        frame=frame,
        shape=pixels.shape,
        dtype=pixels.dtype.name,
        channels=("SRS", "TPEF", "Transmission"),
        timestamp=Timestamp(seconds=1_678_886_400, nanoseconds=123_456_789 + frame),
        pixel_size_um=0.35,
        **more,
    )
    return Message(header, pixels)


def messages() -> dict[str, Message]:
    """Return the messages by name: one of each type, and an image of each dtype."""
    ramp = np.arange(24).reshape(3, 2, 4)
    everything: dict[str, Any] = {
        "position_um": Position(x=94.5, y=-78.75, z=3.25),
        "index": Index(p=17, t=2, z=1),
        "exposure_ms": 1500.0,
        "user_data": {"pmt_volts": [650, 720.5], "note": None},
    }
    return {
        "start": Message(StartHeader(**_ANNOUNCED)),
        "image": _image(0, (ramp * 2731 % 65536).astype(np.uint16), **everything),
        "image_uint8": _image(1, (ramp * 11).astype(np.uint8)),
        "image_float32": _image(2, (ramp / 8 - 1).astype(np.float32)),
        "heartbeat": Message(HeartbeatHeader(**_ANNOUNCED, frame=2)),
        "heartbeat_before_first_frame": Message(HeartbeatHeader(**_SERIES)),
        "end": Message(EndHeader(**_SERIES, frames_sent=3, reason="completed")),
    }


def files() -> dict[str, bytes]:
    """Return the content of the files of the folder, by file name."""
    content: dict[str, bytes] = {}
    expected: dict[str, Any] = {}
    for name, message in messages().items():
        endings = ("topic", "header.json", "pixels.bin")
        parts = {f"{name}.{end}": bytes(part) for end, part in zip(endings, _parts(message), strict=False)}
        content |= parts
        expected[name] = {"parts": list(parts), "type": message.header.type}
        if message.pixels is not None:
            expected[name]["pixels"] = message.pixels.tolist()
    # A message of a later version: a receiver counts it and continues.
    content["later.topic"] = b"fov/nlo-1/line"
    content["later.header.json"] = b'{"format":"nlo-fov","version":"1.7","type":"line","row":3}'
    content["later.line.bin"] = bytes(8)
    expected["later"] = {
        "parts": ["later.topic", "later.header.json", "later.line.bin"],
        "fault": "unknown_type",
    }
    content["expected.json"] = (json.dumps(expected, indent=1) + "\n").encode()
    return content


def _parts(message: Message) -> list[bytes | memoryview]:
    return encode(message.header, message.pixels)


if __name__ == "__main__":
    for name, data in files().items():
        (FOLDER / name).write_bytes(data)
