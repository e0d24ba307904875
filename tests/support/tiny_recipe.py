"""A recipe of seven networks with a few small kernels each; they cannot be run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from senoscope.engine.manifest import Manifest, read_manifest
from senoscope.starter.onnx_file import write_network
from senoscope.starter.recipe import VECTORS_NAME, DrawnKernel, NetworkRecipe, write_zip

KERNELS = (
    DrawnKernel("first", (8, 3, 3, 3), 0, smooth=True),
    DrawnKernel("depthwise", (8, 1, 5, 5), None, smooth=True),
    DrawnKernel("last", (16, 8, 1, 1), 2, smooth=False),
)


def tiny_network(name: str) -> NetworkRecipe:
    scales = tuple(np.linspace(-2, 1, kernel.shape[0], dtype=np.float32) for kernel in KERNELS)
    return NetworkRecipe(name, 5, b"\x08\x08", b"", KERNELS, scales)


def write_tiny_recipe(directory: Path, miniature: Path) -> Path:
    """Write a recipe with the manifest of the miniature ensemble, except for the hashes."""
    directory.mkdir(parents=True)
    manifest, _ = read_manifest(miniature)
    networks = []
    for network in manifest.networks:
        recipe = tiny_network(network.name)
        recipe.save(directory / f"{network.name}.zip")
        built = directory / "built.onnx"
        write_network(recipe, built)
        content = built.read_bytes()
        built.unlink()
        variant = network.variants[0].model_copy(
            update={"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        )
        networks.append(network.model_copy(update={"variants": (variant,)}))
    manifest = Manifest.model_validate(manifest.model_copy(update={"networks": tuple(networks)}).model_dump())
    (directory / "ensemble.json").write_text(manifest.to_json(), encoding="utf-8")
    vectors = {v.file: (miniature / v.file).read_bytes() for v in manifest.test_vectors}
    write_zip(directory / VECTORS_NAME, vectors)
    return directory
