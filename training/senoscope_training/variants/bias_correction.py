"""Correction of convolutions' biases for the mean error that rounded weights cause in their outputs.

The rounding errors of a convolution's weights do not cancel where its inputs have a mean, such as after a
ReLU: each output channel is shifted by a constant, which its bias can remove (Nagel et al. 2019, "Data-free
quantization through weight equalization and bias correction"; here measured on calibration fields of view).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from senoscope_training.export.parity import run_network
from senoscope_training.export.simplify import Graph
from senoscope_training.variants.half import copy_of
from senoscope_training.variants.span import find_span

Float32 = npt.NDArray[np.float32]


def correct_biases(
    model: onnx.ModelProto, fovs: Iterable[npt.NDArray[Any]], low: Float32, high: Float32, threads: int
) -> onnx.ModelProto:
    """Return an fp32 network whose biases remove the mean error that weights in fp16 cause.

    Parameters
    ----------
    model : ModelProto
        The network in fp32; its result is to be converted to fp16.
    fovs : iterable of arrays [C, H, W]
        For calibration.
    """
    corrected = Graph(copy_of(model))
    shifts = _shifts(model, fovs, low, high, threads)
    for node in find_span(corrected).convolutions:
        shift = shifts.get(node.output[0])
        if shift is None:
            continue
        bias = corrected.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        total = shift if bias is None else bias + shift
        name = corrected.add_constant(total.astype(np.float32), "corrected_bias")
        node.input[:] = [*node.input[:2], name]
    return corrected.finish()


def _shifts(
    model: onnx.ModelProto, fovs: Iterable[npt.NDArray[Any]], low: Float32, high: Float32, threads: int
) -> dict[str, Float32]:
    """Return the mean error of the output channels of each convolution, by the name of its output."""
    graph = Graph(copy_of(model))
    means: dict[str, str] = {}
    for node in find_span(graph).convolutions:
        weights = graph.constant(node.input[1])
        if weights is None:
            continue
        lost = weights - weights.astype(np.float16).astype(np.float32)
        output, mean = f"{node.output[0]}/lost", f"{node.output[0]}/mean"
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        twin.name = output
        twin.input[:] = [node.input[0], graph.add_constant(lost, "lost")]
        twin.output[:] = [output]
        graph.nodes += [
            twin,
            helper.make_node("ReduceMean", [output], [mean], name=mean, axes=[2, 3], keepdims=0),
        ]
        means[node.output[0]] = mean
    if not means:
        return {}
    extended = graph.finish()
    for mean in means.values():
        extended.graph.output.append(helper.make_tensor_value_info(mean, TensorProto.FLOAT, None))
    found = run_network(extended.SerializeToString(), list(means.values()), fovs, low, high, threads)
    return {output: mean.mean(axis=0, dtype=np.float64) for output, mean in zip(means, found, strict=True)}
