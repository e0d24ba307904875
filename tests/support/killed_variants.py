"""Make variants of an ensemble, and kill the own process at a step.

python killed_variants.py FOLDER STEP

Steps: ``converted`` (before files are moved in), ``moved`` (before the manifest is replaced), ``listed``
(before files that it does not list are removed).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from senoscope.engine.manifest import read_manifest
from senoscope_training.variants import write
from senoscope_training.variants.fovs import synthetic_for
from support.jobs_here import run_jobs_here


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


if __name__ == "__main__":
    folder, step = Path(sys.argv[1]), sys.argv[2]
    name = {"converted": "_move_in", "moved": "write_atomic", "listed": "write_section"}[step]
    setattr(write, name, kill)
    write.run_jobs = run_jobs_here
    write.write_variants(folder, synthetic_for(read_manifest(folder)[0], 12))
    sys.exit("it was not killed")
