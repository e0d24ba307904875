"""Files of fields of view, as bytes: TIFF and NPY."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile


def tiff(array: npt.ArrayLike, **options: Any) -> bytes:
    """Return a TIFF file; `options` are those of ``tifffile.imwrite``, by default of grey pages."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.asarray(array), **({"photometric": "minisblack"} | options))
    return buffer.getvalue()


def npy(array: npt.ArrayLike, **options: Any) -> bytes:
    """Return an NPY file; `options` are those of ``numpy.save``."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), **options)
    return buffer.getvalue()
