"""Settings of the whole process of ``senoscope serve``; a ``Service`` changes none of them."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import sys
from typing import Literal

from senoscope.logs import configure_logging

_M_MMAP_THRESHOLD = -3  # of malloc.h
_FILES = 4096
_LARGE_BLOCK = 1024 * 1024  # larger than a frame, so that the path of live results is unchanged


def set_up_process(log_format: Literal["console", "json"]) -> None:
    """Set up logging, thread switching and memory for the process of a service.

    Garbage collection is off until `keep_loaded_objects` is called.
    """
    configure_logging(log_format)
    _allow_more_files()
    # OpenTelemetry would log the same failure every second; `tracing` logs it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    # By default a thread with a result to send may wait 5 ms for another one that computes.
    sys.setswitchinterval(0.0005)
    # Imported and loaded objects are never freed: searching them for garbage takes a tenth of the start.
    gc.disable()
    _return_large_blocks()


def collect_garbage() -> None:
    """Free what imports left; call it while networks are opened, which does not need the interpreter."""
    gc.collect()


def keep_loaded_objects() -> None:
    """Turn garbage collection on, excluding all objects loaded so far: traversing them would delay frames."""
    gc.freeze()
    gc.enable()


def _return_large_blocks() -> None:
    """Make the C library return large blocks to the system as soon as they are freed.

    By default glibc raises the threshold for this, up to 32 MiB, with the size of the blocks freed: after ten
    thousand requests of all kinds it held 230 MB of unused memory.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # other C libraries have no mallopt
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _allow_more_files() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
