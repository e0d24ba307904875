"""Versions of the software on which the results of a training depend."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    *("senoscope", "keras", "tensorflow", "jax", "torch", "tf2onnx", "onnx", "onnxruntime-gpu"),
    *("onnxruntime", "scikit-learn", "scipy", "numpy", "opencv-python-headless"),
)


def software_versions() -> dict[str, str]:
    """Return the versions of the packages that are installed; one of the two ONNX Runtimes is enough."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
