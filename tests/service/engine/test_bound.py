"""The CUDA executor's way of copying, run on the CPU provider, and the graph that converts pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from senoscope.engine.bound import BoundExecutor
from senoscope.engine.cast_graph import cast_graph
from senoscope.engine.cpu import CpuExecutor
from senoscope.engine.ensemble import Ensemble
from senoscope.engine.executor import NetworkFile, NetworkOutput
from support import miniature as mini

LOW, HIGH = np.full(3, mini.LOW, np.float32), np.full(3, mini.HIGH, np.float32)


def files(miniature: Path) -> list[NetworkFile]:
    return [
        NetworkFile(name, miniature / f"{name}.onnx", grid, mini.FEATURES, (3, 250, 300))
        for name, grid in zip(mini.NAMES, mini.GRIDS, strict=True)
    ]


def assert_same_bits(one: list[NetworkOutput], other: list[NetworkOutput]) -> None:
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_graph_converts_pixels_exactly(dtype: type[np.unsignedinteger]) -> None:
    model = cast_graph(dtype)
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    for pixels in (values, values.reshape(2, 2, -1, 4)):
        (converted,) = session.run(None, {"pixels": pixels})
        assert converted.dtype == np.float32
        np.testing.assert_array_equal(converted, pixels)


def test_integers_and_packed_outputs_give_the_same_bits(miniature: Path) -> None:
    rng = np.random.default_rng(9)
    batches = [
        rng.integers(0, 256 if dtype is np.uint8 else 65536, (n, 3, 250, 300)).astype(dtype)
        for n in (1, 3, 1, 2)
        for dtype in (np.uint16, np.uint8)
    ]
    plain, bound = CpuExecutor(files(miniature), threads=1), BoundExecutor(files(miniature), device="cpu")
    try:
        bound.warm_up(batches[0].astype(np.float32), LOW, HIGH)
        kept = [
            (plain.run(b.astype(np.float32), LOW, HIGH), plain.run(b, LOW, HIGH), bound.run(b, LOW, HIGH))
            for b in batches
        ]
        floats = [bound.run(b.astype(np.float32), LOW, HIGH) for b in batches]
    finally:
        plain.close()
        bound.close()
    for (expected, converted, got), as_floats in zip(kept, floats, strict=True):
        assert_same_bits(expected, converted)
        assert_same_bits(expected, got)
        assert_same_bits(expected, as_floats)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "int32", "float64"])
def test_an_ensemble_takes_pixels_of_any_type(miniature: Path, dtype: str) -> None:
    counts = np.random.default_rng(3).integers(0, 256, (2, 3, 250, 300))
    with Ensemble.load(miniature, device="cpu") as ensemble:
        expected = ensemble.predict(counts.astype(np.float32))
        strided = np.asfortranarray(counts.astype(dtype))
        for given in (counts.astype(dtype), strided):
            for a, b in zip(expected, ensemble.predict(given), strict=True):
                assert_same_bits(a.outputs(), b.outputs())
