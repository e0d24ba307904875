"""The C library that publishes, called like from LabVIEW: its messages, errors and access control."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from client.vectors.regenerate import FOLDER, messages
from senoscope_client.wire.messages import (
    EndHeader,
    HeartbeatHeader,
    ImageHeader,
    Index,
    Position,
    StartHeader,
    decode,
)
from senoscope_client.zeromq.curve_keys import CurveClient
from support.c_programs import RELEASE, SOURCES, Library, Series, frame

DOCS = SOURCES.parents[1] / "docs" / "how-to"
RESULTS = Path(__file__).with_name("test_c_results.py")
ANYWHERE = b"tcp://127.0.0.1:*"
VECTORS = messages()
UID = b"0192f0c1-7a4e-7cc3-98c4-dc0c0c07398f"
NAME = "plate 3, well B2 (80 µm)".encode()
PIXELS = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
BAD_ARGUMENT, WRONG_STATE, NETWORK, REFUSED = -1, -2, -3, -4


pytestmark = pytest.mark.system("libzmq")


@pytest.fixture(scope="module")
def lib(c_libraries):
    return Library(c_libraries, "publish")


@pytest.fixture
def publisher(lib, listener):
    """Open a publisher to which the listener is subscribed."""
    opened = lib.open(ANYWHERE, b"nlo-1", None, None)
    assert opened, lib.last_error(None)
    listener.connect(lib.endpoint(opened).decode())
    assert lib.wait_for_subscriber(opened, 20_000) == 1
    yield opened
    lib.close(opened)


def test_messages_of_a_subscriber_that_are_not_subscriptions_are_ignored(lib, listener):
    opened = lib.open(ANYWHERE, b"nlo-1", None, None)
    endpoint = lib.endpoint(opened).decode()
    with zmq.Context() as context, context.socket(zmq.XSUB) as other:
        other.connect(endpoint)
        other.send(b"\x01")  # a subscription to all topics
        assert lib.wait_for_subscriber(opened, 20_000) == 1
        for _ in range(3):
            other.send(b"\x02")
        other.send_multipart([b"\x02", b"\x02fov/nlo-1/image"])
        other.send(b"\x00")
        deadline_s = time.monotonic() + 60
        while lib.wait_for_subscriber(opened, 0):
            assert time.monotonic() < deadline_s
    listener.connect(endpoint)
    assert lib.wait_for_subscriber(opened, 20_000) == 1
    lib.close(opened)


def recorded(name: str) -> list[bytes]:
    parts = json.loads((FOLDER / "expected.json").read_text("utf-8"))[name]["parts"]
    return [(FOLDER / part).read_bytes() for part in parts]


def test_the_library_sends_the_recorded_messages(lib, publisher, listener):
    series = Series(
        series_id=NAME,
        series_uid=UID,
        planned_frames=48,
        mosaic_rows=6,
        mosaic_columns=8,
        pump_wavelength_nm=798,
        stokes_wavelength_nm=1032.5,
        wavenumber_cm1=2850,
        user_data=b'{"operator":"T. Est","passage":12}',
    )
    sent = ["start", "image", "image_uint8", "image_float32", "heartbeat", "end"]
    assert lib.start_series_with(publisher, series) == 0
    for number, name in enumerate(sent[1:4]):
        more = {"seconds": 1_678_886_400, "nanoseconds": 123_456_789 + number}
        if name == "image":
            more |= {"exposure_ms": 1500, "user_data": b'{"pmt_volts":[650,720.5],"note":null}'}
            more |= {"position": (94.5, -78.75, 3.25), "index": (17, 2, 1)}
        assert lib.publish_frame_with(publisher, frame(VECTORS[name].pixels, **more)) == number
    assert lib.heartbeat(publisher) == 0
    assert lib.end_series(publisher, b"completed") == 3
    series = Series(series_id=NAME, series_uid=UID)
    assert lib.start_series_with(publisher, series) == 0
    assert lib.heartbeat(publisher) == 0
    for name in sent:
        assert listener.recv_multipart() == recorded(name), name
    assert isinstance(decode(listener.recv_multipart()).header, StartHeader)
    assert listener.recv_multipart() == recorded("heartbeat_before_first_frame")


def test_the_library_sends_the_example_of_the_manual(lib, publisher, listener):
    manual = (DOCS / "labview-and-matlab.md").read_text("utf-8")
    dumps = re.findall(r"^```hexdump\n(.*?)^```", manual, re.MULTILINE | re.DOTALL)
    example = [bytes.fromhex("".join(row[6:53] for row in dump.splitlines())) for dump in dumps]
    assert [f"{len(part)} bytes" in manual for part in example] == [True] * 3
    series = Series(series_id=b"plate 3", series_uid=UID)
    assert lib.start_series_with(publisher, series) == 0
    pixels = np.arange(100, 1300, 100, dtype=np.uint16).reshape(3, 2, 2)
    options = {"position": (94.5, -78.75, 0), "seconds": 1_678_886_400, "nanoseconds": 500_000_000}
    assert lib.publish_frame_with(publisher, frame(pixels, **options)) == 0
    listener.recv_multipart()
    assert listener.recv_multipart() == example
    np.testing.assert_array_equal(decode(example).pixels, pixels)


def test_the_simple_functions_of_the_library(lib, publisher, listener):
    assert lib.start_series(publisher, b"s", 2) == 0
    before_ns = time.time_ns()
    assert lib.publish_frame(publisher, PIXELS.ctypes.data, 3, 4, 5, 1.5, 2.5, 0.0) == 0
    assert lib.publish_frame(publisher, PIXELS.ctypes.data, 3, 4, 5, math.nan, math.nan, math.nan) == 1
    after_ns = time.time_ns()
    start, first, second = (decode(listener.recv_multipart()) for _ in range(3))
    assert (start.header.series_id, start.header.planned_frames) == ("s", 2)
    assert start.header.series_uid.version == 4
    assert first.header.position_um == Position(x=1.5, y=2.5, z=0.0)
    assert second.header.position_um is None
    assert (first.header.frame, second.header.frame) == (0, 1)
    assert before_ns <= first.header.timestamp.to_ns() <= second.header.timestamp.to_ns() <= after_ns
    np.testing.assert_array_equal(second.pixels, PIXELS)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: "Infinity" not in json.dumps(value))
# A text in C ends at its first NUL.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(
    series_id=TEXTS,
    reason=TEXTS,
    position=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    index=st.tuples(*[st.integers(0, 2**53 - 1)] * 3),
    exposure=st.floats(0, allow_infinity=False),
    user_data=st.dictionaries(st.text(), JSON_VALUES, max_size=3),
    spaced=st.booleans(),
)
def test_the_library_sends_all_values_unchanged(
    lib, series_id, reason, position, index, exposure, user_data, spaced
):
    publisher, listener = _shared(lib)
    text = json.dumps(user_data, ensure_ascii=spaced, indent=1 if spaced else None).encode()
    assert lib.start_series(publisher, series_id.encode(), 0) == 0
    sent = frame(PIXELS, position, index, exposure_ms=exposure, user_data=text)
    assert lib.publish_frame_with(publisher, sent) == 0, lib.last_error(publisher)
    assert lib.end_series(publisher, reason.encode()) == 1
    headers = [decode(listener.recv_multipart()).header]
    while not isinstance(headers[-1], EndHeader):
        headers.append(decode(listener.recv_multipart()).header)
    image = next(header for header in headers if isinstance(header, ImageHeader))
    assert image.series_id == series_id
    assert image.position_um == Position(x=position[0], y=position[1], z=position[2])
    assert image.index == Index(p=index[0], t=index[1], z=index[2])
    assert (image.exposure_ms or 0) == exposure
    assert image.user_data == user_data
    assert headers[-1].reason == (reason or "completed")


_opened: list = []


def _shared(lib):
    """Return a publisher and its listener for all examples of a property; fixtures are not reset for each."""
    if not _opened:
        publisher = lib.open(ANYWHERE, b"nlo-1", None, None)
        socket = zmq.Context.instance().socket(zmq.SUB)
        socket.setsockopt(zmq.RCVTIMEO, 20_000)
        socket.subscribe("fov/")
        socket.connect(lib.endpoint(publisher).decode())
        assert lib.wait_for_subscriber(publisher, 20_000) == 1
        _opened.extend([publisher, socket])
    return _opened


@pytest.fixture(scope="module", autouse=True)
def _close_shared():
    yield
    if _opened:
        _opened.pop().close(0)
        _opened.clear()


def test_pixels_that_are_not_copied_are_released_once(lib, publisher, listener):
    released = []
    release = RELEASE(lambda pixels, hint: released.append((pixels, hint)))
    pixels = np.full((3, 500, 600), 7, np.uint16)
    assert lib.publish_frame_nocopy(publisher, frame(pixels), release, 1) == WRONG_STATE
    assert lib.start_series(publisher, b"s", 0) == 0
    assert lib.publish_frame_nocopy(publisher, frame(pixels[:2]), release, 2) == BAD_ARGUMENT
    assert lib.publish_frame_nocopy(publisher, frame(pixels), release, 3) == 0
    listener.recv_multipart()
    np.testing.assert_array_equal(decode(listener.recv_multipart()).pixels, pixels)
    deadline_s = time.monotonic() + 90
    while len(released) < 3 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert released == [(pixels.ctypes.data, hint) for hint in (1, 2, 3)]


def test_the_first_frame_after_a_second_is_followed_by_a_heartbeat(lib, publisher, listener):
    assert lib.start_series(publisher, b"s", 0) == 0
    time.sleep(1.1)
    assert lib.publish_frame_with(publisher, frame(PIXELS)) == 0
    headers = [decode(listener.recv_multipart()).header for _ in range(3)]
    assert isinstance(headers[2], HeartbeatHeader)
    assert headers[2].frame == 0


def series_with(**changes):
    return Series(**({"series_id": b"s"} | changes))


BAD_SERIES = [
    (Series(), "series_id is missing"),
    (series_with(series_id="µ".encode("cp1252")), "not UTF-8"),
    (series_with(series_id=b"s" * 1025), "1025 characters"),
    (series_with(series_uid=b"7"), "not a UUID"),
    (series_with(series_uid=UID + b"0"), "longer than a UUID"),
    (series_with(channels=b"SRS,,TPEF"), "1 to 64 characters"),
    (series_with(channels=b"SRS,TPEF,SRS"), "two channels have the name SRS"),
    (series_with(pixel_size_um=-1), "must be positive"),
    (series_with(wavenumber_cm1=math.nan), "must be positive"),
    (series_with(planned_frames=-1), "must be positive"),
    (series_with(mosaic_rows=2), "rows and columns"),
    *(
        (series_with(user_data=text), "not a JSON object")
        for text in (
            *(
                b" ",
                b"[]",
                b"{",
                b'{"a":1,}',
                b'{"a":01}',
                b"{} {}",
                b"{'a':1}",
                b'{"a":"\xff"}',
                b'{"a":NaN}',
            ),
            *(b'{"a":"\\x"}', b'{"a":"\\ud800"}', b'{"a":"\t"}', b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"),
        )
    ),
    (series_with(user_data=b'{"a":"' + b"b" * 70_000 + b'"}'), "more than 65536 bytes"),
]


@pytest.mark.parametrize(("series", "message"), BAD_SERIES, ids=[b[1] for b in BAD_SERIES])
def test_the_library_rejects_an_invalid_series(lib, publisher, listener, series, message):
    assert lib.start_series_with(publisher, series) == BAD_ARGUMENT
    assert message in lib.last_error(publisher).decode()
    assert lib.start_series(publisher, b"good", 0) == 0
    assert decode(listener.recv_multipart()).header.series_id == "good"


BAD_FRAMES = [
    (frame(PIXELS.astype(np.int64)), "dtype"),
    (frame(PIXELS[:2]), "2 channels, its series 3"),
    (frame(PIXELS[:, :0]), "1 to 65536"),
    (frame(PIXELS, (0, math.inf, 0)), "position"),
    (frame(PIXELS, index=(0, -1, 0)), "index"),
    (frame(PIXELS, exposure_ms=-1), "exposure"),
    (frame(PIXELS, seconds=1, nanoseconds=10**9), "time stamp"),
    (frame(PIXELS, user_data=b"1"), "user_data"),
    (frame(PIXELS, user_data=b'{"a":"' + b"b" * 70_000 + b'"}'), "more than 65536 bytes"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_FRAMES, ids=[b[1] for b in BAD_FRAMES])
def test_the_library_rejects_an_invalid_frame(lib, publisher, listener, bad, message):
    assert lib.publish_frame_with(publisher, frame(PIXELS)) == WRONG_STATE
    assert lib.end_series(publisher, None) == WRONG_STATE
    assert lib.start_series(publisher, b"s", 0) == 0
    assert lib.start_series(publisher, b"s", 0) == WRONG_STATE
    assert lib.publish_frame_with(publisher, bad) == BAD_ARGUMENT
    assert message in lib.last_error(publisher).decode()
    assert lib.publish_frame_with(publisher, frame(PIXELS)) == 0
    assert [decode(listener.recv_multipart()).header.type for _ in range(2)] == ["start", "image"]


@pytest.mark.parametrize("name", [None, b"", b"a/b", b"a b", b"a\n", "a\u2003b".encode(), b"x" * 65, b"\xff"])
def test_the_library_rejects_an_invalid_instrument(lib, name):
    assert lib.open(ANYWHERE, name, None, None) is None
    assert b"the instrument's name" in lib.last_error(None)


def test_an_endpoint_that_cannot_be_bound_is_reported(lib, publisher):
    for endpoint in (b"nowhere", lib.endpoint(publisher)):
        assert lib.open(endpoint, b"nlo-1", None, None) is None
        assert b"cannot be bound at " + endpoint in lib.last_error(None)
    assert lib.open(None, b"nlo-1", None, None) is None


def test_close_ends_an_open_series(lib, listener):
    publisher = lib.open(ANYWHERE, b"nlo-1", None, None)
    listener.connect(lib.endpoint(publisher).decode())
    assert lib.wait_for_subscriber(publisher, 20_000) == 1
    lib.start_series(publisher, b"s", 0)
    lib.close(publisher)
    listener.recv_multipart()
    assert decode(listener.recv_multipart()).header.reason == "aborted"


def receives_frames(publisher, lib, endpoint, curve, wait_ms=20_000) -> bool:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.subscribe("fov/")
        if curve is not None:
            curve.secure(socket)
        socket.connect(endpoint)
        deadline_s = time.monotonic() + wait_ms / 1000
        while time.monotonic() < deadline_s:
            lib.publish_frame_with(publisher, frame(PIXELS))
            if socket.poll(20):
                return True
        return False


def test_only_allowed_subscribers_receive_frames(lib, keys):
    secret, server = keys / "acquisition.key_secret", str(keys / "acquisition.key")
    allowed = keys / "allowed"
    shutil.copy(keys / "service.key", allowed)
    text = re.search(r'"(.{40})"', (keys / "service.key").read_text())[1]
    client = {name: CurveClient.load(server, keys / f"{name}.key_secret") for name in ("service", "unknown")}
    for allowed_keys in (str(allowed), text):
        publisher = lib.open(ANYWHERE, b"nlo-1", str(secret).encode(), allowed_keys.encode())
        assert publisher, lib.last_error(None)
        assert lib.start_series(publisher, b"s", 0) == 0
        endpoint = lib.endpoint(publisher).decode()
        for curve in (client["unknown"], None):
            assert not receives_frames(publisher, lib, endpoint, curve, 500)
        assert receives_frames(publisher, lib, endpoint, client["service"])
        if allowed_keys == str(allowed):  # a key that is added is allowed from the next handshake on
            allowed.write_text(allowed.read_text() + (keys / "unknown.key").read_text())
            assert receives_frames(publisher, lib, endpoint, client["unknown"])
        lib.close(publisher)


def test_without_allowed_keys_the_public_key_of_the_publisher_suffices(lib, keys):
    secret = re.findall(r'"(.{40})"', (keys / "acquisition.key_secret").read_text())[1]
    publisher = lib.open(ANYWHERE, b"nlo-1", secret.encode(), None)
    assert lib.start_series(publisher, b"s", 0) == 0
    endpoint = lib.endpoint(publisher).decode()
    correct = CurveClient.load(str(keys / "acquisition.key"))
    wrong = CurveClient.load(str(keys / "unknown.key"))
    assert receives_frames(publisher, lib, endpoint, correct)
    assert not receives_frames(publisher, lib, endpoint, wrong, 500)
    lib.close(publisher)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    "SENOSCOPE_TEST_C_LIBRARIES" in os.environ, reason="this process was started by the test itself"
)
def test_libraries_under_the_address_sanitizer(c_programs):
    """Run the tests of the libraries again, in a Python into which the sanitizer is loaded first."""
    preload = subprocess.run(
        ["cc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True
    ).stdout.strip()
    done = subprocess.run(
        [*(sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"), __file__, RESULTS],
        env={
            **os.environ,
            "SENOSCOPE_TEST_C_LIBRARIES": str(c_programs("address,undefined")),
            "LD_PRELOAD": preload,
            "ASAN_OPTIONS": "detect_leaks=0",  # Python itself has some
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d\d passed", done.stdout)
