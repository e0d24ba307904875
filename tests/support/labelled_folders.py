"""Data set folders for tests, with small files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from senoscope_training.config import DataConfig, InputConfig
from support.image_bytes import tiff

H, W = 32, 40
SIZE = InputConfig(height=H, width=W)
NAMES = ("SRS", "TPEF", "Transmission")


def fov(
    seed: int, *, channels: int = 3, height: int = H, width: int = W, dtype: str = "uint16"
) -> np.ndarray:
    """Return blurred noise that is not similar to that of another seed."""
    noise = np.random.default_rng(seed).random((height, width, channels), np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 4).reshape(height, width, channels).transpose(2, 0, 1)
    scaled = (blurred - blurred.min()) / np.ptp(blurred) * 250
    return scaled.astype(dtype)


def png(image: np.ndarray) -> bytes:
    """Encode an image [H, W] or [H, W, RGB]."""
    return cv2.imencode(".png", image if image.ndim == 2 else image[:, :, ::-1])[1].tobytes()


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def config(root: Path, **changes) -> DataConfig:
    return DataConfig(path=root, **changes)


def good(count: int = 6) -> dict[str, bytes]:
    """Return files of alternating classes; names begin with c for control, s for senescent."""
    return {f"{'cs'[n % 2]}{n}.tif": tiff(fov(n)) for n in range(count)}


def table(files: dict[str, bytes], *extra: str, header: str = "file,label", more: str = "") -> str:
    """Return dataset.csv of `good` files, with ``more`` at the end of each row, and ``extra`` rows."""
    rows = [f"{name},{'control' if name[0] == 'c' else 'senescent'}{more}" for name in files]
    return "\n".join([header, *rows, *extra]) + "\n"
