"""What ``senoscope serve`` sets for its whole process; a ``Service`` itself sets nothing of the kind."""

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
_LARGE_BLOCK = 1024 * 1024  # more than a frame: on the way of live results nothing changes


def set_up_process(log_format: Literal["console", "json"]) -> None:
    """Prepare the process of a service: log lines, switches between threads, memory.

    Garbage is not collected until `collect_garbage` is called.
    """
    configure_logging(log_format)
    _allow_more_files()
    # It would report the same failure every second; `tracing` reports it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    # A thread that has a result to send must not wait for 5 ms, the default, while another one computes.
    sys.setswitchinterval(0.0005)
    # What is imported and loaded stays: looking for garbage in it takes a tenth of the start.
    gc.disable()
    _return_large_blocks()


def collect_garbage() -> None:
    """Collect garbage from now on, except in what was loaded: walking that again would delay frames."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _return_large_blocks() -> None:
    """Have the C library give large blocks back to the system as soon as they are freed.

    By default glibc raises the size from which it does, up to 32 MiB, with what is freed: after ten thousand
    requests of all kinds it held 230 MB that nobody used.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # there are other C libraries
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _allow_more_files() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
