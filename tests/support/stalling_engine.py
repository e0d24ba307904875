"""A service whose engine stalls: a start-up file for the Python of child processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CODE = """
import sys

if "serve" in sys.orig_argv:
    import time

    from senoscope.engine.ensemble import Ensemble

    predict = Ensemble.predict
    next_stall_s = time.monotonic()

    def stalling(*arguments):
        global next_stall_s
        if time.monotonic() >= next_stall_s:
            next_stall_s = time.monotonic() + {every_s}
            time.sleep({seconds})
        return predict(*arguments)

    Ensemble.predict = stalling
"""


def stalling_services(folder: Path, seconds: float, every_s: float) -> dict[str, str]:
    """Return variables with which the engine of each ``senoscope serve`` stalls at an interval."""
    (folder / "sitecustomize.py").write_text(_CODE.format(seconds=seconds, every_s=every_s))
    return {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
