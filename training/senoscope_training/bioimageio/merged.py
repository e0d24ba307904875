"""One ONNX graph of a whole ensemble, from raw counts to probabilities and Grad-CAM map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from senoscope.engine.errors import EnsembleError
from senoscope.engine.manifest import MANIFEST_NAME, Manifest
from senoscope_training.export.convert import IR_VERSION, OPSET

IMAGE = "image"
PROBABILITY, NETWORKS, GRADCAM = "probability", "network_probabilities", "gradcam"
_OURS = ":ensemble/"  # a prefix that no network has
_MAX_SIZE = 2**31 - 2**20  # bytes; protobuf messages must be smaller than 2 GiB


def merge(directory: Path, manifest: Manifest) -> onnx.ModelProto:
    """Combine the fp32 networks of an ensemble, its intensity range and its combination into one graph.

    The input ``image`` is float32 [N, C, H, W] in raw counts; the outputs are ``probability`` [N, 1],
    ``network_probabilities`` [N, K] in the manifest's order, and ``gradcam`` [N, H, W] in 0..1. The
    arithmetic is that of :func:`senoscope.engine.gradcam.ensemble_map`. The files must have been verified.

    Raises
    ------
    EnsembleError
        If a network has another opset or no fp32 variant, or if the networks are too large for one file.
    """
    files = _files(directory, manifest)
    spec, bounds = manifest.input, manifest.normalization.channels
    constants: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {
        # Inputs of the networks that are constants here.
        "low": np.array([channel.low for channel in bounds], np.float32),
        "high": np.array([channel.high for channel in bounds], np.float32),
        _OURS + "plane": np.array([1, spec.height, spec.width], np.int64),
        _OURS + "axis_1": np.array([1], np.int64),
        _OURS + "axes_123": np.array([1, 2, 3], np.int64),
        _OURS + "zero": np.array(0, np.float32),
        _OURS + "one": np.array(1, np.float32),
        _OURS + "count": np.array(len(files), np.float32),
    }
    merged = onnx.ModelProto(ir_version=IR_VERSION, producer_name="senoscope")
    merged.opset_import.append(helper.make_opsetid("", OPSET))
    graph = merged.graph  # filled in place, because helper.make_model would copy half a gigabyte
    graph.name = f"senoscope_{manifest.name}"
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    node = helper.make_node
    graph.node.extend(
        [
            node("Shape", [IMAGE], [_OURS + "batch"], start=0, end=1),
            node("Concat", [_OURS + "batch", _OURS + "plane"], [_OURS + "size"], axis=0),
        ]
    )
    names = [network.name for network in manifest.networks]
    for path, name in zip(files, names, strict=True):
        model = onnx.load(path)
        opsets = {entry.domain: entry.version for entry in model.opset_import}
        if opsets != {"": OPSET}:
            raise EnsembleError(
                path, f"has the opsets {opsets}, but a package requires {{'': {OPSET}}}: export it again"
            )
        compose.add_prefix(model, f"{name}/", rename_inputs=False, inplace=True)
        graph.node.extend(model.graph.node)
        graph.initializer.extend(model.graph.initializer)
        graph.node.extend(_contribution(f"{name}/", f"{_OURS}{name}/"))
    graph.node.extend(
        [
            node("Concat", [f"{_OURS}{name}/column" for name in names], [NETWORKS], axis=1),
            node("ReduceMean", [NETWORKS], [PROBABILITY], axes=[1], keepdims=1),
            node("Sum", [f"{_OURS}{name}/weighted" for name in names], [_OURS + "sum"]),
            node("Div", [_OURS + "sum", _OURS + "count"], [_OURS + "mean"]),
            node("Squeeze", [_OURS + "mean", _OURS + "axis_1"], [GRADCAM]),
        ]
    )
    value, plane = helper.make_tensor_value_info, [spec.height, spec.width]
    graph.input.append(value(IMAGE, TensorProto.FLOAT, ["N", len(spec.channels), *plane]))
    graph.output.extend(
        [
            value(PROBABILITY, TensorProto.FLOAT, ["N", 1]),
            value(NETWORKS, TensorProto.FLOAT, ["N", len(files)]),
            value(GRADCAM, TensorProto.FLOAT, ["N", *plane]),
        ]
    )
    return merged


def _files(directory: Path, manifest: Manifest) -> list[Path]:
    files, size = [], 0
    for network in manifest.networks:
        variant = network.variant("fp32")
        if variant is None:
            raise EnsembleError(directory / MANIFEST_NAME, f"network {network.name} has no fp32 variant")
        files.append(directory / variant.file)
        size += variant.bytes
    if size > _MAX_SIZE:
        raise EnsembleError(
            directory / MANIFEST_NAME,
            f"its networks have {size} bytes, but one ONNX file can have at most 2 GiB",
        )
    return files


def _contribution(network: str, ours: str) -> list[onnx.NodeProto]:
    """Return nodes for a network's column of probabilities and its map: upsampled, normalised, weighted."""
    node = helper.make_node
    return [
        node("Unsqueeze", [network + "probability", _OURS + "axis_1"], [ours + "column"]),
        node("Unsqueeze", [network + "probability", _OURS + "axes_123"], [ours + "weight"]),
        node("Unsqueeze", [network + "gradcam", _OURS + "axis_1"], [ours + "grid"]),
        # The same as cv2.INTER_LINEAR.
        node(
            "Resize",
            [ours + "grid", "", "", _OURS + "size"],
            [ours + "upsampled"],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
        node("ReduceMax", [ours + "upsampled"], [ours + "peak"], axes=[1, 2, 3]),
        node("Greater", [ours + "peak", _OURS + "zero"], [ours + "lit"]),
        node("Where", [ours + "lit", ours + "peak", _OURS + "one"], [ours + "divisor"]),
        node("Div", [ours + "upsampled", ours + "divisor"], [ours + "normalised"]),
        node("Mul", [ours + "normalised", ours + "weight"], [ours + "weighted"]),
    ]
