"""Building of the C clients with sanitizers, and access to their shared libraries with ctypes."""

from __future__ import annotations

import contextlib
import ctypes as c
import subprocess
import threading
from pathlib import Path

import zmq

from support import system

SOURCES = Path(__file__).parents[2] / "clients" / "c"
DTYPES = {"uint8": 1, "uint16": 2, "float32": 4}
RELEASE = c.CFUNCTYPE(None, c.c_void_p, c.c_void_p)
_SANITIZE = "-Werror -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all -fsanitize="


def build(folder: Path, sanitizers: str) -> Path:
    """Build both programs and both libraries."""
    system.require("libzmq")
    command = ["make", "-C", SOURCES, f"BUILD={folder}", f"CFLAGS={_SANITIZE}{sanitizers}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Series(c.Structure):
    _fields_ = (
        ("series_id", c.c_char_p),
        ("series_uid", c.c_char_p),
        ("channels", c.c_char_p),
        ("pixel_size_um", c.c_double),
        ("planned_frames", c.c_int64),
        ("mosaic_rows", c.c_int64),
        ("mosaic_columns", c.c_int64),
        ("pump_wavelength_nm", c.c_double),
        ("stokes_wavelength_nm", c.c_double),
        ("wavenumber_cm1", c.c_double),
        ("user_data", c.c_char_p),
    )


class Frame(c.Structure):
    _fields_ = (
        ("pixels", c.c_void_p),
        ("dtype", c.c_int32),
        ("channels", c.c_int32),
        ("height", c.c_int32),
        ("width", c.c_int32),
        ("position_um", c.POINTER(c.c_double)),
        ("index", c.POINTER(c.c_int64)),
        ("exposure_ms", c.c_double),
        ("seconds", c.c_int64),
        ("nanoseconds", c.c_int64),
        ("user_data", c.c_char_p),
    )


def frame(pixels, position=None, index=None, **more) -> Frame:
    """Return a frame that holds references to the memory that it points to."""
    created = Frame(
        pixels=pixels.ctypes.data,
        dtype=DTYPES.get(pixels.dtype.name, 3),
        channels=pixels.shape[0],
        height=pixels.shape[1],
        width=pixels.shape[2],
        position_um=None if position is None else (c.c_double * 3)(*position),
        index=None if index is None else (c.c_int64 * 3)(*index),
        **more,
    )
    created.references = (pixels, position, index)
    return created


_TEXT, _HANDLE, _SERIES, _FRAME = c.c_char_p, c.c_void_p, c.POINTER(Series), c.POINTER(Frame)
_PUBLISH = {
    "open": (_HANDLE, _TEXT, _TEXT, _TEXT, _TEXT),
    "last_error": (_TEXT, _HANDLE),
    "endpoint": (_TEXT, _HANDLE),
    "wait_for_subscriber": (c.c_int32, _HANDLE, c.c_int32),
    "start_series": (c.c_int32, _HANDLE, _TEXT, c.c_int64),
    "start_series_with": (c.c_int32, _HANDLE, _SERIES),
    "publish_frame": (
        *(c.c_int64, _HANDLE, c.c_void_p, c.c_int32, c.c_int32, c.c_int32),
        *(c.c_double, c.c_double, c.c_double),
    ),
    "publish_frame_with": (c.c_int64, _HANDLE, _FRAME),
    "publish_frame_nocopy": (c.c_int64, _HANDLE, _FRAME, RELEASE, c.c_void_p),
    "heartbeat": (c.c_int32, _HANDLE),
    "end_series": (c.c_int64, _HANDLE, _TEXT),
    "close": (None, _HANDLE),
}
_SUBSCRIBE = {
    "results_open": (_HANDLE, _TEXT, _TEXT, _TEXT, _TEXT),
    "results_error": (_TEXT, _HANDLE),
    "results_next": (c.c_int32, _HANDLE, c.c_int32),
    "results_json": (_TEXT, _HANDLE),
    "results_text": (_TEXT, _HANDLE, _TEXT),
    "results_number": (c.c_double, _HANDLE, _TEXT),
    "results_rejected": (c.c_int64, _HANDLE),
    "results_reconnects": (c.c_int64, _HANDLE),
    "results_close": (None, _HANDLE),
}


class Library:
    """The functions of a shared library, without their prefix ``senoscope_``."""

    def __init__(self, folder: Path, name: str) -> None:
        library = c.CDLL(str(folder / f"libsenoscope_{name}.so"))
        for function, (result, *arguments) in {"publish": _PUBLISH, "subscribe": _SUBSCRIBE}[name].items():
            found = getattr(library, f"senoscope_{function}")
            found.restype, found.argtypes = result, arguments
            setattr(self, function, found)


@contextlib.contextmanager
def publishing(*sent: list[bytes]):
    """Run a PUB socket that sends messages repeatedly, and yield its endpoint."""
    stop = threading.Event()
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        port = socket.bind_to_random_port("tcp://127.0.0.1")

        def send() -> None:
            while not stop.wait(0.01):
                for message in sent:
                    socket.send_multipart(message)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{port}"
        finally:
            stop.set()
            thread.join()
