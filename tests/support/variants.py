"""Variants of the miniature ensemble in lower precisions, its reference set, and damage to them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from senoscope.engine.manifest import Manifest, Network, Parity, Variant, read_manifest, sha256_of
from senoscope.engine.manifest_variants import Agreement, Reference
from senoscope.engine.precision import FilePrecision
from support import miniature as mini

FOVS = 6
GOOD = Agreement(
    fovs=FOVS, max_abs_probability=0.001, p99_abs_probability=0.001, label_flips=0, gradcam_iou=0.99
)
BAD = GOOD.model_copy(update={"max_abs_probability": 0.9, "p99_abs_probability": 0.8})
_WEIGHTS = ("mix", "w1", "w2", "w1_columns", "w2_row")


def reference_fovs(height: int = 250, width: int = 300) -> np.ndarray:
    """Fields of view, uint16 [N, C, H, W], whose probabilities lie on both sides of the threshold."""
    rng = np.random.default_rng(7)
    levels = np.linspace(60, 900, FOVS)[:, None, None, None]
    gradient = np.linspace(0.2, 1.0, width)[None, None, None, :]
    return (levels * gradient + rng.uniform(0, 80, (FOVS, 3, height, width))).astype(np.uint16)


def build(directory: Path, precision: FilePrecision = "fp16", **options: Any) -> Path:
    """Write a miniature ensemble that has a variant of each network, and a reference set."""
    mini.build(directory, **options)
    add_reference(directory, precision)
    for name in mini.NAMES:
        write_variant(directory, name, precision)
    return directory


def write_variant(
    directory: Path,
    name: str,
    precision: FilePrecision = "fp16",
    change: Callable[[dict[str, np.ndarray]], None] = lambda _: None,
    agreement: Agreement | None = GOOD,
) -> Path:
    """Write a variant of a network, with its hash, after a change of its weights by name."""
    model = onnx.load(directory / f"{name}.onnx")
    arrays = {one.name: numpy_helper.to_array(one).copy() for one in model.graph.initializer}
    change(arrays)
    del model.graph.initializer[:]
    casts = []
    for weight, array in arrays.items():
        if weight in _WEIGHTS:  # half of the digits, computed as before
            casts.append(helper.make_node("Cast", [f"{weight}/half"], [weight], to=TensorProto.FLOAT))
            model.graph.initializer.append(
                numpy_helper.from_array(array.astype(np.float16), f"{weight}/half")
            )
        else:
            model.graph.initializer.append(numpy_helper.from_array(array, weight))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    path = directory / f"{name}.{precision}.onnx"
    path.write_bytes(model.SerializeToString())

    def listed(network: Network) -> Network:
        if network.name != name:
            return network
        variant = Variant(
            precision=precision,
            file=path.name,
            bytes=path.stat().st_size,
            sha256=sha256_of(path),
            parity=Parity(max_abs_logit=0.01, max_abs_gradcam=0.01, agreement=agreement),
        )
        others = tuple(one for one in network.variants if one.precision != precision)
        return network.model_copy(update={"variants": (*others, variant)})

    change_manifest(
        directory, lambda m: m.model_copy(update={"networks": tuple(listed(n) for n in m.networks)})
    )
    return path


def add_reference(
    directory: Path, precision: FilePrecision = "fp16", labels: Collection[bool] | None = None
) -> None:
    """Write reference fields of view and their outputs in fp32."""
    manifest, _ = read_manifest(directory)
    fovs = reference_fovs(manifest.input.height, manifest.input.width)
    channels = fovs.shape[1]
    feeds = {
        "image": fovs.astype(np.float32),
        "low": np.full(channels, mini.LOW, np.float32),
        "high": np.full(channels, mini.HIGH, np.float32),
    }
    expected = {}
    quiet = ort.SessionOptions()
    quiet.log_severity_level = 3
    for name in mini.NAMES:
        session = ort.InferenceSession(directory / f"{name}.onnx", quiet, providers=["CPUExecutionProvider"])
        outputs = session.run(["probability", "gradcam"], feeds)
        expected[f"{name}.probability"], expected[f"{name}.gradcam"] = outputs
    np.save(directory / "reference.npy", fovs)
    np.savez_compressed(directory / "reference_fp32.npz", **expected)
    reference = Reference(
        file="reference.npy",
        sha256=sha256_of(directory / "reference.npy"),
        expected="reference_fp32.npz",
        expected_sha256=sha256_of(directory / "reference_fp32.npz"),
        fovs=FOVS,
        source="tests",
        labels=None if labels is None else tuple(labels),
        agreement={precision: GOOD},
    )
    change_manifest(directory, lambda m: m.model_copy(update={"reference": reference}))


def change_manifest(directory: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Write a changed manifest."""
    manifest, _ = read_manifest(directory)
    (directory / "ensemble.json").write_text(change(manifest).to_json())


def edit_json(directory: Path, change: Callable[[dict], None]) -> None:
    """Change the manifest as JSON."""
    path = directory / "ensemble.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def scale(
    weight: str, factor: float, index: tuple[int, ...] | None = None
) -> Callable[[dict[str, np.ndarray]], None]:
    """Return a change that multiplies a weight, or one number of it."""

    def change(arrays: dict[str, np.ndarray]) -> None:
        if index is None:
            arrays[weight] *= factor
        else:
            arrays[weight][index] *= factor

    return change
