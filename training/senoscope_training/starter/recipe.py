"""Reduction of an exported network with random kernels to a recipe from which it is rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from senoscope.starter.kernels import Float32, Shape, random_kernel
from senoscope.starter.onnx_file import write_network
from senoscope.starter.recipe import DrawnKernel, NetworkRecipe

_TOLERANCE = 1e-5  # of a kernel's largest value; the folding of a batch norm rounds
_MAX_STORED = 16 * 1024  # values of a kernel that was not drawn


class RecipeError(Exception):
    """A network does not consist of drawn kernels and small tensors."""


@dataclass(frozen=True)
class Source:
    """The distribution of a drawn kernel; see `senoscope_training.networks.random_weights.KernelSlot`."""

    index: int
    shape: Shape
    smooth: bool


class Distillation:
    """Finds the drawn kernels in an exported network, and replaces them by kernels that the recipe rebuilds.

    The folding of a batch norm multiplies each output channel of a kernel by a factor; the recipe stores
    these factors. The rebuilt kernels differ from the exported ones by rounding errors. Therefore features,
    head and parity are computed after this replacement, so that they are valid for the rebuilt file.

    Parameters
    ----------
    model : onnx.ModelProto
        The exported network; changed in place.
    network : str
        Name of the network.
    seed : int
        As in :func:`senoscope_training.networks.random_weights.draw_kernels`.
    sources : sequence of Source

    Raises
    ------
    RecipeError
        If a large initializer is not a drawn kernel.
    """

    def __init__(self, model: onnx.ModelProto, network: str, seed: int, sources: Sequence[Source]) -> None:
        self._network, self._seed = network, seed
        self.kernels: list[DrawnKernel] = []
        self.scales: list[Float32] = []
        remaining = list(sources)
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            found = self._find(values, remaining) if values.ndim == 4 else None
            if found is None:
                if values.size > _MAX_STORED and values.ndim == 4:
                    raise RecipeError(f"{network}: {tensor.name} {values.shape} is not a drawn kernel")
                continue
            source, scale, rebuilt = found
            if source is not None:
                remaining.remove(source)
            self.kernels.append(
                DrawnKernel(
                    tensor.name,
                    _shape(values),
                    None if source is None else source.index,
                    smooth=source is None or source.smooth,
                )
            )
            self.scales.append(scale)
            tensor.CopyFrom(numpy_helper.from_array(rebuilt, tensor.name))

    def _find(
        self, values: npt.NDArray[np.float32], sources: Sequence[Source]
    ) -> tuple[Source | None, Float32, Float32] | None:
        shape = _shape(values)
        if shape[1] == 1:
            # A window times a factor per channel; drawing the sign of the factor would save nothing.
            centre = values[:, 0, shape[2] // 2, shape[3] // 2]
            window = random_kernel(0, "", None, shape, np.ones(shape[0], np.float32), smooth=True)
            scale = np.asarray(centre / window[:, 0, shape[2] // 2, shape[3] // 2], np.float32)
            rebuilt = random_kernel(0, "", None, shape, scale, smooth=True)
            if _equal(values, rebuilt):
                return None, scale, rebuilt
        for source in sources:
            if source.shape != shape:
                continue
            drawn = random_kernel(
                self._seed,
                self._network,
                source.index,
                shape,
                np.ones(shape[0], np.float32),
                smooth=source.smooth,
            )
            if not _equal(values[0], drawn[0] * _factor(values[0], drawn[0])):
                continue
            scale = np.array(
                [_factor(value, draw) for value, draw in zip(values, drawn, strict=True)], np.float32
            )
            rebuilt = random_kernel(
                self._seed, self._network, source.index, shape, scale, smooth=source.smooth
            )
            if _equal(values, rebuilt):
                return source, scale, rebuilt
        return None

    def save(self, model: onnx.ModelProto, path: Path, recipe: Path) -> None:
        """Write the recipe of a network, and the network's file, rebuilt from the recipe.

        Parameters
        ----------
        model : onnx.ModelProto
            The model of the constructor, with its final head; its drawn kernels are removed.
        """
        drawn = {kernel.name for kernel in self.kernels}
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in drawn]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        graph = model.graph.SerializeToString(deterministic=True)
        model.ClearField("graph")
        built = NetworkRecipe(
            self._network,
            self._seed,
            model.SerializeToString(deterministic=True),
            graph,
            tuple(self.kernels),
            tuple(self.scales),
        )
        built.save(recipe)
        write_network(NetworkRecipe.load(recipe), path)


def _factor(values: npt.NDArray[np.float32], drawn: npt.NDArray[np.float32]) -> float:
    """Compute the least-squares factor from drawn to exported values."""
    exact = drawn.astype(np.float64)
    return float((exact * values).sum() / max(float(np.square(exact).sum()), 1e-30))


def _equal(values: npt.NDArray[np.float32], rebuilt: npt.NDArray[np.float32]) -> bool:
    return bool(np.abs(values - rebuilt).max() <= _TOLERANCE * np.abs(values).max())


def _shape(values: npt.NDArray[np.float32]) -> Shape:
    outputs, inputs, rows, columns = values.shape
    return outputs, inputs, rows, columns
