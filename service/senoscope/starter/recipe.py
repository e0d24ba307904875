"""The files of a recipe: all data of a network that a bit generator cannot reproduce.

The recipe of a network, ``<name>.zip``, contains ``model.pb`` (an ONNX ``ModelProto`` without its graph),
``graph.pb`` (its ``GraphProto`` without the large kernels), ``kernels.json`` (a description of those
kernels), and ``scales.npy`` (their factors, one per output channel, concatenated).
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

from senoscope.starter.kernels import Float32, Shape, random_kernel

VECTORS_NAME = "test_vectors.zip"
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)  # constant, so that equal recipes have equal bytes


@dataclass(frozen=True)
class DrawnKernel:
    """A kernel that is drawn instead of stored, by :func:`senoscope.starter.kernels.random_kernel`."""

    name: str  # of the initializer in the graph
    shape: Shape
    index: int | None
    smooth: bool

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return 4 * math.prod(self.shape)


@dataclass(frozen=True)
class NetworkRecipe:
    """How to rebuild one network's ONNX file."""

    network: str  # name of the architecture
    seed: int
    model: bytes  # serialized protobuf messages, as described above
    graph: bytes
    kernels: tuple[DrawnKernel, ...]
    scales: tuple[Float32, ...]  # factors of each kernel, [output channels]

    def values(self) -> Iterator[tuple[DrawnKernel, Float32]]:
        """Draw the kernels one by one."""
        for kernel, scale in zip(self.kernels, self.scales, strict=True):
            name, smooth = self.network, kernel.smooth
            yield kernel, random_kernel(self.seed, name, kernel.index, kernel.shape, scale, smooth=smooth)

    def save(self, path: Path) -> None:
        """Write the recipe to a file."""
        about = {
            "network": self.network,
            "seed": self.seed,
            "kernels": [astuple(kernel) for kernel in self.kernels],
        }
        scales = io.BytesIO()
        np.save(scales, np.concatenate(self.scales).astype("<f4"))
        write_zip(
            path,
            {
                "model.pb": self.model,
                "graph.pb": self.graph,
                "kernels.json": json.dumps(about).encode(),
                "scales.npy": scales.getvalue(),
            },
        )

    @classmethod
    def load(cls, source: Path | Traversable) -> NetworkRecipe:
        """Read a recipe from a file."""
        with source.open("rb") as file, zipfile.ZipFile(file) as members:
            about = json.loads(members.read("kernels.json"))
            scales = np.load(io.BytesIO(members.read("scales.npy")), allow_pickle=False).astype(np.float32)
            kernels = tuple(
                DrawnKernel(name, (shape[0], shape[1], shape[2], shape[3]), index, smooth)
                for name, shape, index, smooth in about["kernels"]
            )
            ends = np.cumsum([kernel.shape[0] for kernel in kernels])
            return cls(
                about["network"],
                about["seed"],
                members.read("model.pb"),
                members.read("graph.pb"),
                kernels,
                tuple(np.split(scales, ends[:-1])),
            )


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    """Write a compressed ZIP file whose bytes depend only on its members."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(
                zipfile.ZipInfo(name, _TIMESTAMP),
                content,
                compress_type=zipfile.ZIP_DEFLATED,
                compresslevel=9,
            )
