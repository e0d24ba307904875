"""The seven real networks, made once and cached, and a tiny one that takes a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from senoscope_training import export_code_digest

CLONE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def starter_ensemble() -> Path:
    """A starter ensemble's folder, with Keras' weights and heads in ``../keras``.

    Kept under ``.cache/`` by the hash of all that went into it.
    """
    cache = CLONE / ".cache" / "networks" / export_code_digest()[:16]
    ensemble = cache / "starter"
    if not (ensemble / "ensemble.json").is_file():
        command = [sys.executable, "-m", "senoscope_training.cli", "starter", "--weights", "random"]
        command += ["--models-dir", str(cache), "--keep-keras", str(cache / "keras")]
        subprocess.run(command, check=True)
    return ensemble


@pytest.fixture(scope="session")
def tensorflow():
    from senoscope_training.runtime import start_tensorflow

    start_tensorflow(threads=2)
    import tensorflow

    return tensorflow
