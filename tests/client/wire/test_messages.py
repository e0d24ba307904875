"""The format of the frame stream: recorded bytes, round trips, and each kind of fault."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from client.vectors.regenerate import FOLDER, files, messages
from fuzz.targets import check_wire, joined
from senoscope_client.wire.messages import (
    MAX_HEADER_BYTES,
    EndHeader,
    ImageHeader,
    StartHeader,
    Timestamp,
    WireError,
    decode,
    encode,
)

MESSAGES = messages()
EXPECTED = json.loads((FOLDER / "expected.json").read_text("utf-8"))


def recorded(name: str) -> list[bytes]:
    return [(FOLDER / part).read_bytes() for part in EXPECTED[name]["parts"]]


def image_parts(**changes: object) -> list[bytes]:
    """Return a valid image message with changed header keys; None removes a key."""
    topic, head, pixels = recorded("image")
    header = {k: v for k, v in (json.loads(head) | changes).items() if v is not None}
    return [topic, json.dumps(header).encode(), pixels]


def test_the_committed_vectors_are_what_encode_returns():
    assert {
        path.name: path.read_bytes() for path in FOLDER.iterdir() if path.is_file()
    }.items() >= files().items()


@pytest.mark.parametrize("name", MESSAGES)
def test_a_vector_decodes_to_its_message(name):
    message = decode(recorded(name))
    assert message.header == MESSAGES[name].header
    if MESSAGES[name].pixels is None:
        assert message.pixels is None
    else:
        np.testing.assert_array_equal(message.pixels, MESSAGES[name].pixels)
        assert message.pixels.dtype == MESSAGES[name].pixels.dtype
        assert message.pixels.tolist() == EXPECTED[name]["pixels"]


def test_a_type_of_a_later_version_is_unknown_type():
    with pytest.raises(WireError) as caught:
        decode(recorded("later"))
    assert caught.value.reason == EXPECTED["later"]["fault"] == "unknown_type"


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, zmq.Frame])
def test_pixels_are_a_read_only_view_of_the_received_bytes(wrap):
    parts = [wrap(part) for part in recorded("image")]
    pixels = decode(parts).pixels
    assert not pixels.flags.writeable
    if wrap is bytearray:
        parts[2][0] += 1
        assert pixels[0, 0, 0] == 1


def test_contiguous_pixels_are_sent_without_a_copy():
    header, pixels = MESSAGES["image"].header, MESSAGES["image"].pixels.copy()
    parts = encode(header, pixels)
    assert np.shares_memory(np.frombuffer(parts[2], np.uint8), pixels)


@pytest.mark.parametrize("change", [lambda a: a.astype(">u2"), np.asfortranarray])
def test_pixels_of_another_memory_layout_are_converted(change):
    header, pixels = MESSAGES["image"].header, MESSAGES["image"].pixels
    np.testing.assert_array_equal(decode(encode(header, change(pixels))).pixels, pixels)


IMAGE = recorded("image")
FAULTS = [
    ("nothing", [], "part_count"),
    ("topic alone", IMAGE[:1], "part_count"),
    ("image without pixels", IMAGE[:2], "part_count"),
    ("image with four parts", [*IMAGE, b""], "part_count"),
    ("end with pixels", [*recorded("end"), b""], "part_count"),
    ("foreign topic", [b"temperature/1/image", *IMAGE[1:]], "bad_topic"),
    ("topic with too few levels", [b"fov/image", *IMAGE[1:]], "bad_topic"),
    ("topic with too many levels", [b"fov/a/b/image", *IMAGE[1:]], "bad_topic"),
    ("topic of an empty name", [b"fov//image", *IMAGE[1:]], "bad_topic"),
    ("topic that is not UTF-8", [b"fov/\xff/image", *IMAGE[1:]], "bad_topic"),
    ("endless topic", [b"fov/" + b"a" * 10_000 + b"/image", *IMAGE[1:]], "bad_topic"),
    ("unknown type", [b"fov/nlo-1/line", *IMAGE[1:]], "unknown_type"),
    ("no JSON", [IMAGE[0], b"{", IMAGE[2]], "bad_json"),
    ("JSON that is not UTF-8", [IMAGE[0], b'{"format": "\xff"}', IMAGE[2]], "bad_json"),
    ("nested without end", [IMAGE[0], b"[" * 60_000, IMAGE[2]], "bad_json"),
    ("a number without end", [IMAGE[0], b"9" * 60_000, IMAGE[2]], "bad_json"),
    ("JSON, but no object", [IMAGE[0], b"[]", IMAGE[2]], "bad_header"),
    ("huge header", [IMAGE[0], b" " * (MAX_HEADER_BYTES + 1), IMAGE[2]], "header_too_large"),
    ("other format", image_parts(format="dectris"), "unknown_format"),
    ("no format", image_parts(format=None), "unknown_format"),
    ("other version", image_parts(version="2.0"), "unknown_version"),
    ("no version", image_parts(version=None), "unknown_version"),
    ("type of another topic", image_parts(type="start"), "topic_mismatch"),
    ("no type", image_parts(type=None), "topic_mismatch"),
    ("instrument of another topic", image_parts(instrument="nlo-2"), "topic_mismatch"),
    ("no htype", image_parts(htype=None), "bad_header"),
    ("signed pixels", image_parts(dtype="int16"), "dtype_not_allowed"),
    ("object pixels", image_parts(dtype="O"), "dtype_not_allowed"),
    ("misspelt key", image_parts(exposure=3), "bad_header"),
    ("number as text", image_parts(frame="0"), "bad_header"),
    ("negative frame", image_parts(frame=-1), "bad_header"),
    ("fraction of a frame", image_parts(frame=0.5), "bad_header"),
    ("two dimensions", image_parts(shape=[2, 4]), "bad_header"),
    ("no rows", image_parts(shape=[3, 0, 4]), "bad_header"),
    ("other axes", image_parts(axes="YXC"), "bad_header"),
    ("too few channel names", image_parts(channels=["SRS", "TPEF"]), "bad_header"),
    ("one name twice", image_parts(channels=["SRS", "SRS", "TPEF"]), "bad_header"),
    ("pixels without size", image_parts(pixel_size_um=0), "bad_header"),
    ("position nowhere", image_parts(position_um={"x": float("nan"), "y": 0, "z": 0}), "bad_header"),
    ("NaN in user data", image_parts(user_data={"a": [float("nan")]}), "bad_header"),
    (
        "a number beyond all in user data",
        [IMAGE[0], IMAGE[1][:-1] + b', "user_data": {"a": 1e999}}', IMAGE[2]],
        "bad_header",
    ),
    ("a second of 10^9 ns", image_parts(timestamp={"seconds": 0, "nanoseconds": 10**9}), "bad_header"),
    ("no UUID", image_parts(series_uid="7"), "bad_header"),
    ("a byte short", [*IMAGE[:2], IMAGE[2][:-1]], "byte_count"),
    ("a byte long", [*IMAGE[:2], IMAGE[2] + b"\0"], "byte_count"),
    ("no bytes", [*IMAGE[:2], b""], "byte_count"),
    ("larger than any FOV", image_parts(shape=[3, 65536, 65536]), "pixels_too_large"),
]


@pytest.mark.parametrize(("parts", "reason"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_decode_raises_the_reason_of_each_fault(parts, reason):
    with pytest.raises(WireError) as caught:
        decode(parts)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 600


@given(st.data())
def test_decode_handles_mutated_messages(data):
    parts = [bytearray(part) for part in recorded(data.draw(st.sampled_from(list(EXPECTED))))]
    for _ in range(data.draw(st.integers(1, 4))):
        part = data.draw(st.sampled_from(parts))
        start = data.draw(st.integers(0, len(part)))
        stop = data.draw(st.integers(start, min(len(part), start + 8)))
        part[start:stop] = data.draw(st.binary(max_size=8))
    check_wire(joined([bytes(part) for part in parts]))


@given(st.lists(st.binary(max_size=64), max_size=5))
def test_decode_rejects_arbitrary_bytes(parts):
    with pytest.raises(WireError):
        decode(parts)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    series_id=st.text(max_size=40),
    user_data=st.dictionaries(st.text(), JSON_VALUES, max_size=3),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    time_ns=st.integers(0, 2**62),
    data=st.data(),
)
def test_an_image_is_unchanged_by_encode_and_decode(series_id, user_data, shape, dtype, time_ns, data):
    values = data.draw(st.binary(min_size=(size := int(np.prod(shape)) * 4), max_size=size))
    pixels = np.frombuffer(values, np.uint8)[: int(np.prod(shape))].astype(dtype).reshape(shape)
    header = ImageHeader(
        instrument="a",
        series_id=series_id,
        series_uid=uuid.uuid4(),
        frame=0,
        shape=shape,
        dtype=dtype,
        channels=tuple("abcd"[: shape[0]]),
        timestamp=Timestamp.from_ns(time_ns),
        pixel_size_um=0.1,
        user_data=user_data,
    )
    message = decode(encode(header, pixels))
    assert message.header == header
    np.testing.assert_array_equal(message.pixels, pixels)


def test_encode_raises_the_reason_of_each_fault():
    header, pixels = MESSAGES["image"].header, MESSAGES["image"].pixels
    for array, reason in [
        (None, "part_count"),
        (pixels[:, :1], "pixels_mismatch"),
        (pixels.astype(np.int16), "pixels_mismatch"),
    ]:
        with pytest.raises(WireError) as caught:
            encode(header, array)
        assert caught.value.reason == reason
    with pytest.raises(WireError, match="part_count"):
        encode(MESSAGES["end"].header, pixels)
    start = StartHeader(instrument="a", series_id="s", series_uid=uuid.uuid4(), user_data={"a": "b" * 70_000})
    with pytest.raises(WireError, match="header_too_large"):
        encode(start)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a\n", "x" * 65, "\0"])
def test_an_instrument_must_be_one_level_of_a_topic(name):
    with pytest.raises(ValueError, match="instrument"):
        EndHeader(instrument=name, series_id="", series_uid=uuid.uuid4(), frames_sent=0, reason="")


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)), st.integers(-12, 12))
def test_a_timestamp_returns_its_time_in_utc(naive, hours):
    time = naive.replace(tzinfo=timezone(timedelta(hours=hours)))
    stamp = Timestamp.from_datetime(time)
    assert stamp.to_datetime() == time
    assert stamp.to_datetime().tzinfo is UTC
    assert Timestamp.from_ns(stamp.to_ns()) == stamp


def test_a_time_without_time_zone_is_rejected():
    with pytest.raises(ValueError, match="zone"):
        Timestamp.from_datetime(datetime(2026, 1, 1))


def test_the_wire_format_imports_no_sockets():
    loaded = "{'zmq', 'httpx', 'websockets'} & set(sys.modules)"
    code = f"import sys, senoscope_client.wire.messages; sys.exit(bool({loaded}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
