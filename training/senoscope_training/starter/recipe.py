"""Reduction of an exported network with random kernels to a recipe from which it is rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from senoscope.starter.kernels import Float32, Shape, random_kernel
from senoscope.starter.onnx_file import write_network
from senoscope.starter.recipe import DrawnKernel, NetworkRecipe
from senoscope_training.networks.random_weights import KernelSlot

_TOLERANCE = 1e-5  # of a kernel's largest value; the folding of a batch norm rounds
_MAX_STORED = 16 * 1024  # values of a kernel that was not drawn


class RecipeError(Exception):
    """A network does not consist of drawn kernels and small tensors."""


class Distillation:
    """Finds the drawn kernels in an exported network, and replaces them by kernels that the recipe rebuilds.

    The folding of a batch norm multiplies each output channel of a kernel by a factor; the recipe stores
    these factors. The rebuilt kernels differ from the exported ones by rounding errors. Therefore features,
    head and parity are computed after this replacement, so that they are valid for the rebuilt file. The
    exported network is changed in place; the seed is that with which its kernels were drawn.

    Raises
    ------
    RecipeError
        If a large initializer is not a drawn kernel.
    """

    def __init__(self, model: onnx.ModelProto, network: str, seed: int, slots: Sequence[KernelSlot]) -> None:
        self._network, self._seed = network, seed
        self.kernels: list[DrawnKernel] = []
        self.scales: list[Float32] = []
        remaining = list(slots)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.ndim != 4:
                continue
            found = self._find(values, remaining)
            if found is None:
                if values.size > _MAX_STORED:
                    raise RecipeError(f"{network}: {tensor.name} {values.shape} is not a drawn kernel")
                continue
            slot, scale, rebuilt = found
            if slot is not None:
                remaining.remove(slot)
            index, smooth = (None, True) if slot is None else (slot.index, slot.smooth)
            self.kernels.append(DrawnKernel(tensor.name, _shape(values), index, smooth))
            self.scales.append(scale)
            tensor.CopyFrom(numpy_helper.from_array(rebuilt, tensor.name))

    def _find(
        self, values: Float32, slots: Sequence[KernelSlot]
    ) -> tuple[KernelSlot | None, Float32, Float32] | None:
        shape = _shape(values)
        if shape[1] == 1:
            # A window times a factor per channel; drawing the sign of the factor would save nothing.
            window = self._draw(None, shape, np.ones(shape[0], np.float32))
            centre = (slice(None), 0, shape[2] // 2, shape[3] // 2)
            scale = np.asarray(values[centre] / window[centre], np.float32)
            rebuilt = self._draw(None, shape, scale)
            if _equal(values, rebuilt):
                return None, scale, rebuilt
        for slot in slots:
            if slot.shape != shape:
                continue
            drawn = self._draw(slot, shape, np.ones(shape[0], np.float32))
            if not _equal(values[0], drawn[0] * _factor(values[0], drawn[0])):
                continue
            factors = [_factor(value, draw) for value, draw in zip(values, drawn, strict=True)]
            scale = np.array(factors, np.float32)
            rebuilt = self._draw(slot, shape, scale)
            if _equal(values, rebuilt):
                return slot, scale, rebuilt
        return None

    def _draw(self, slot: KernelSlot | None, shape: Shape, scale: Float32) -> Float32:
        """Draw the kernel of a slot; without a slot, a window."""
        index, smooth = (None, True) if slot is None else (slot.index, slot.smooth)
        return random_kernel(self._seed, self._network, index, shape, scale, smooth=smooth)

    def save(self, model: onnx.ModelProto, path: Path, recipe: Path) -> None:
        """Write the recipe of the constructor's model with its final head, and the file rebuilt from it.

        The drawn kernels are removed from the model.
        """
        drawn = {kernel.name for kernel in self.kernels}
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in drawn]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        graph = model.graph.SerializeToString(deterministic=True)
        model.ClearField("graph")
        rest = model.SerializeToString(deterministic=True)
        kernels, scales = tuple(self.kernels), tuple(self.scales)
        NetworkRecipe(self._network, self._seed, rest, graph, kernels, scales).save(recipe)
        write_network(NetworkRecipe.load(recipe), path)


def _factor(values: Float32, drawn: Float32) -> float:
    """Compute the least-squares factor from drawn to exported values."""
    exact = drawn.astype(np.float64)
    return float((exact * values).sum() / max(float(np.square(exact).sum()), 1e-30))


def _equal(values: Float32, rebuilt: Float32) -> bool:
    return bool(np.abs(values - rebuilt).max() <= _TOLERANCE * np.abs(values).max())


def _shape(values: Float32) -> Shape:
    outputs, inputs, rows, columns = values.shape
    return outputs, inputs, rows, columns
