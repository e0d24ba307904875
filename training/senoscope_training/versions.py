"""Versions of the software that decides what a training gives."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = (
    *(
        "senoscope",
        "keras",
        "tensorflow",
        "jax",
        "torch",
        "tf2onnx",
        "onnx",
        "onnxruntime-gpu",
        "onnxruntime",
    ),
    *("scikit-learn", "scipy", "numpy", "opencv-python-headless"),
)


def software_versions() -> dict[str, str]:
    """Of those packages that are installed: there are two of ONNX Runtime, and one is enough."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
