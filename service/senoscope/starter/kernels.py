"""Random convolution kernels that are identical on every machine, bit for bit.

They use only operations with a result that is defined exactly: the raw output of a bit generator, which NumPy
guarantees (unlike that of its distributions), conversions of small integers, and products of two float32
(IEEE 754). There are no sums, no fused multiply-adds and no calls of a BLAS.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Shape = tuple[int, int, int, int]
_TAPS_PER_WORD = 4
_TAP_STEP = np.float32(2.0**-15)


def draw_taps(seed: int, network: str, index: int, shape: Shape) -> Float32:
    """Draw uniformly from the multiples of 2^-15 in [-1, 1).

    Parameters
    ----------
    seed : int
        Seed of the ensemble or the run.
    network : str
        Name of the architecture.
    index : int
        Index of the kernel in the network; each kernel has its own stream.
    shape : tuple of int
        Output channels, input channels, rows, columns, as in ONNX.

    Returns
    -------
    float32 array of that shape
    """
    key = hashlib.sha256(f"senoscope/{seed}/{network}/{index}".encode()).digest()[:16]
    generator = np.random.Philox(key=int.from_bytes(key, "little"))
    count = math.prod(shape)
    words = generator.random_raw(-(-count // _TAPS_PER_WORD))
    taps = words.astype("<u8").view("<i2")[:count].astype(np.float32)
    taps *= _TAP_STEP
    return taps.reshape(shape)


def binomial_window(rows: int, columns: int) -> Float32:
    """Return binomial weights [rows, columns] with the sum 1; exact, as multiples of a power of two."""
    vertical, horizontal = (
        [math.comb(size - 1, k) * 2.0 ** (1 - size) for k in range(size)] for size in (rows, columns)
    )
    return np.outer(vertical, horizontal).astype(np.float32)


def random_kernel(
    seed: int, network: str, index: int | None, shape: Shape, scale: Float32, *, smooth: bool
) -> Float32:
    """Draw a kernel.

    Parameters
    ----------
    index : int, optional
        See :func:`draw_taps`; without an index every tap is 1, and only the scale defines the kernel.
    shape : tuple of int
        Output channels, input channels, rows, columns.
    scale : float32 array [output channels]
        Factor of each output channel.
    smooth : bool
        Draw one tap per pair of channels and distribute it over rows and columns with a binomial window,
        instead of drawing each tap independently.

    Returns
    -------
    float32 array of ``shape``
    """
    outputs, inputs, rows, columns = shape
    taps_shape = (outputs, inputs, 1, 1) if smooth else shape
    taps = np.ones(taps_shape, np.float32) if index is None else draw_taps(seed, network, index, taps_shape)
    factor = scale.astype(np.float32).reshape(outputs, 1, 1)
    if smooth:
        factor = factor * binomial_window(rows, columns).reshape(1, 1, -1)
    # Rows and columns as one axis give NumPy a longer innermost loop.
    return (taps.reshape(outputs, inputs, -1) * factor).reshape(shape)
