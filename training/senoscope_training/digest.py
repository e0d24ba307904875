"""A hash of all that decides what an export looks like, as a key for caches of exported networks."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

import senoscope_client

_SOFTWARE = ("keras", "numpy", "onnx", "tensorflow", "tf2onnx")
_NOT_EXPORT = {"cli.py", "evaluate_commands.py", "experiment.py", "export_commands.py", "systems.py"}
_LEARNING = ("fitting.py", "images.py", "seeds.py")  # what trains a starter's heads
_SYNTHETIC = ("synthetic.py", "_cells.py", "_raster.py")


def export_code_digest() -> str:
    """SHA-256 over the sources of export and synthetic FOVs, and over the versions of what they use."""
    digest = hashlib.sha256()
    here, client = Path(__file__).parent, Path(senoscope_client.__file__).parent
    sources = [path for path in sorted(here.glob("*.py")) if path.name not in _NOT_EXPORT]
    sources += [here / "learning" / name for name in _LEARNING]
    for path in (*sources, *(client / name for name in _SYNTHETIC)):
        digest.update(f"{path.name}\n".encode())
        # Line ends differ between checkouts of the same commit.
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    for name in _SOFTWARE:
        digest.update(f"{name}=={version(name)}\n".encode())
    return digest.hexdigest()
