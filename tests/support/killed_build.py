"""Build the starter ensemble from a recipe, and kill the own process when a fraction of it is written.

    python killed_build.py MODELS_DIR RECIPE SHARE

With a fraction above 1 it finishes and prints ``built``, or ``found`` if the ensemble existed already.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from senoscope.starter.build import build_starter

if __name__ == "__main__":
    models_dir, recipe, share = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    wrote = []

    def kill_at(done: int, total: int) -> None:
        wrote.append(done)
        if done >= share * total:
            os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    build_starter(models_dir, kill_at, recipe)
    print("built" if wrote else "found")
