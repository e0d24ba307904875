"""Functions that draw soft structures into float32 images, with NumPy only."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]


@cache
def _spline_basis(length: int, pitch: int) -> Image:
    """Return the uniform cubic B-splines of knots ``pitch`` apart, sampled at each of ``length`` pixels."""
    knots = np.arange(-1, (length - 1) // pitch + 3)
    t = np.abs(np.arange(length)[:, None] / pitch - knots)
    basis = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
    return basis.astype(np.float32)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], pitch: int) -> Image:
    """Return two-dimensional noise, smooth over ``pitch`` pixels, of about zero mean and unit variance."""
    rows, columns = (_spline_basis(length, pitch) for length in shape)
    grid = rng.standard_normal((rows.shape[1], columns.shape[1]), np.float32)
    # A cubic B-spline keeps 0.48 of the variance along each axis, on average over a pitch.
    noise: Image = np.matmul(np.matmul(rows, grid), columns.T)
    noise /= np.float32(0.479)
    return noise


def blur(image: Image, sigma: float) -> Image:
    """Convolve an image with a Gaussian of ``sigma`` pixels; the image is mirrored at its borders."""
    reach = max(1, round(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach, reach)
        padded = np.pad(image, pad, mode="symmetric")
        length = image.shape[axis]
        image = np.zeros_like(image)
        for tap, weight in enumerate(kernel):
            part = padded[tap : tap + length] if axis == 0 else padded[:, tap : tap + length]
            image += np.float32(weight) * part
    return image


def laplacian(image: Image) -> Image:
    """Return the five-point Laplacian, in units per square pixel; the image is mirrored at its borders."""
    p = np.pad(image, 1, mode="symmetric")
    return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * image


def splat(shape: tuple[int, int], y: Vector, x: Vector, weight: Vector) -> Image:
    """Sum the weights of points; each weight is distributed over the four pixels around its point."""
    height, width = shape
    keep = (y >= 0) & (y < height - 1) & (x >= 0) & (x < width - 1)
    y, x, weight = y[keep], x[keep], weight[keep]
    row, column = y.astype(np.intp), x.astype(np.intp)
    fy, fx = y - row, x - column
    corner = row * width + column
    places = np.concatenate((corner, corner + 1, corner + width, corner + width + 1))
    shares = np.concatenate(((1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx))
    summed = np.bincount(places, shares * np.tile(weight, 4), minlength=height * width)
    return summed.astype(np.float32).reshape(shape)


def spots(shape: tuple[int, int], y: Vector, x: Vector, sigma: Vector, weight: Vector) -> Image:
    """Sum Gaussian spots of peak ``weight`` and width ``sigma`` pixels."""
    height, width = shape
    scale = 1 / (np.sqrt(2) * sigma[:, None])
    rows = np.exp(-(((np.arange(height) - y[:, None]) * scale) ** 2)) * weight[:, None]
    columns = np.exp(-(((np.arange(width) - x[:, None]) * scale) ** 2))
    painted: Image = rows.astype(np.float32).T @ columns.astype(np.float32)
    return painted


def soft_step(distance_px: Image, softness_px: float) -> Image:
    """Return 0 far outside, 1 far inside, and 0.5 where the signed distance is zero."""
    step: Image = np.float32(0.5) + np.float32(0.5) * np.tanh(distance_px / np.float32(2 * softness_px))
    return step
