"""Conversion of a network's backbone to int8 with NNCF, calibrated on fields of view."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from senoscope_training.export.simplify import Graph
from senoscope_training.variants.errors import VariantError
from senoscope_training.variants.half import copy_of
from senoscope_training.variants.span import find_span

Float32 = npt.NDArray[np.float32]


def require_nncf() -> None:
    """Raise VariantError if NNCF is not installed."""
    if find_spec("nncf") is None:
        raise VariantError('int8 needs NNCF: pip install "senoscope[int8]"')


def convert_to_int8(
    model: onnx.ModelProto, fovs: Sequence[npt.NDArray[Any]], low: Float32, high: Float32
) -> onnx.ModelProto:
    """Return a network with its backbone in int8, with NNCF's own correction of biases.

    Parameters
    ----------
    fovs : sequence of array [C, H, W]
        Raw counts, for the ranges of the activations.
    """
    import nncf

    nncf.set_log_level(40)  # errors
    copy = copy_of(model)
    graph = Graph(copy_of(model))
    inside = {output for node in find_span(graph).nodes for output in node.output}
    for k, node in enumerate(copy.graph.node):
        node.name = f"{node.op_type}_{k}"  # NNCF finds nodes by their names, which must be unique
    outside = [node.name for node in copy.graph.node if node.output[0] not in inside]
    feeds = [{"image": np.asarray(fov[None], np.float32), "low": low, "high": high} for fov in fovs]
    with redirect_stdout(io.StringIO()):  # its progress bars would mix with the command's output
        return nncf.quantize(
            copy,
            nncf.Dataset(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(names=outside),
        )
