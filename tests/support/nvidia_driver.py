"""A driver library that reports a GPU of a given type, for machines without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_SOURCE = """
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, NAME, size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device)
{ *value = attribute == 75 ? MAJOR : attribute == 76 ? MINOR : -1; return 0; }
int cuDeviceGetUuid(char *uuid, int device) { memset(uuid, 7, 16); return UUID_ERROR; }
int cuDriverGetVersion(int *version) { *version = 13020; return 0; }
"""


def build(
    folder: Path, name: str, capability: tuple[int, int], *, count: int = 1, uuid_error: int = 0
) -> Path:
    """Compile the library into a folder; needs the program ``cc``."""
    source = folder / "driver.c"
    source.write_text(_SOURCE)
    macros = {
        "NAME": f'"{name}"',
        "MAJOR": capability[0],
        "MINOR": capability[1],
        "COUNT": count,
        "UUID_ERROR": uuid_error,
    }
    options = [f"-D{macro}={value}" for macro, value in macros.items()]
    library = folder / "libcuda.so.1"
    subprocess.run(
        ["cc", "-w", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", *options, source, "-o", library],
        check=True,
    )
    return folder


def run_with(folder: Path, program: str) -> str:
    """Run a Python program in a process that finds the driver, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"LD_LIBRARY_PATH": str(folder)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
