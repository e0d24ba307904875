"""Recipes of networks: rebuilt networks equal the exported ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from senoscope.starter.build import recipe_folder
from senoscope.starter.recipe import NetworkRecipe
from senoscope_training.export.network import ExportedNetwork, export_network
from senoscope_training.networks.architectures import preprocessing
from senoscope_training.networks.random_weights import KernelSlot, draw_kernels, kernel_slots
from senoscope_training.starter.recipe import Distillation, RecipeError
from support.tiny_backbone import HEIGHT, TINY, WIDTH, tiny_backbone

SEED = 11


def exported(mode: str = "tf", seed: int = SEED) -> tuple[ExportedNetwork, list[KernelSlot]]:
    backbone = tiny_backbone()
    draw_kernels("tiny", backbone, seed)
    return export_network(backbone, preprocessing(mode)), kernel_slots(TINY, backbone)


def outputs(model: bytes | str) -> list[np.ndarray]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).integers(0, 900, (2, 3, HEIGHT, WIDTH)).astype(np.float32)
    return session.run(
        None, {"image": image, "low": np.zeros(3, np.float32), "high": np.full(3, 1e3, np.float32)}
    )


@pytest.mark.parametrize("mode", ["tf", "torch"])
def test_a_rebuilt_network_has_the_same_outputs(tensorflow, tmp_path: Path, mode: str) -> None:
    network, slots = exported(mode)
    before = outputs(network.model.SerializeToString())
    distilled = Distillation(network.model, "tiny", SEED, slots)
    distilled.save(network.model, tmp_path / "tiny.onnx", tmp_path / "tiny.zip")
    for rebuilt, original in zip(outputs(str(tmp_path / "tiny.onnx")), before, strict=True):
        np.testing.assert_allclose(rebuilt, original, rtol=1e-5, atol=1e-6 * np.abs(original).max())
    kernels = {kernel.name: kernel for kernel in distilled.kernels}
    # Preprocessing is folded into the first kernel; that of "torch" has a factor per input channel.
    assert len(kernels) == len(slots) - (mode == "torch")
    assert sum(kernel.index is None for kernel in kernels.values()) == 2, "both depthwise kernels"


def test_a_large_kernel_that_was_not_drawn_is_refused(tensorflow, monkeypatch: pytest.MonkeyPatch) -> None:
    network, slots = exported()
    monkeypatch.setattr("senoscope_training.starter.recipe._MAX_STORED", 64)
    with pytest.raises(RecipeError, match="is not a drawn kernel"):
        Distillation(network.model, "tiny", SEED + 1, slots)


def test_kernels_have_the_variance_of_keras_initializers(tensorflow) -> None:
    backbone = tiny_backbone()
    slots = kernel_slots(TINY, backbone)
    for slot in slots:
        assert slot.smooth is (max(slot.shape[2:]) > 1)
        wide = np.sqrt(6 / (slot.shape[2] * slot.shape[3] * sum(slot.weight.shape[2:])))
        assert slot.amplitude == pytest.approx(wide * (3 if slot.smooth else 1))
    draw_kernels("tiny", backbone, SEED)
    drawn = [slot.weight.numpy() for slot in slots]
    draw_kernels("tiny", backbone, SEED)
    for slot, first in zip(slots, drawn, strict=True):
        assert np.array_equal(slot.weight.numpy(), first)


def test_the_shipped_recipe_is_small() -> None:
    sizes = {path.name: len(path.read_bytes()) for path in recipe_folder().iterdir()}
    assert len(sizes) == 9
    assert max(sizes.values()) < 2_000_000
    assert sum(sizes.values()) <= 4 * 1024 * 1024


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_new_recipe_equals_the_shipped_one(starter_made_anew: Path) -> None:
    """Processors round differently: numbers are compared within tolerances, everything else exactly."""
    new_folder = starter_made_anew / "recipe"
    manifests = [
        json.loads((recipe / "ensemble.json").read_text(encoding="utf-8"))
        for recipe in (recipe_folder(), new_folder)
    ]
    for network in manifests[1]["networks"]:
        (variant,) = network["variants"]
        assert variant["parity"]["max_abs_gradcam"] <= 1e-4
        assert network["metrics"]["parity_relative_logit"] <= 1e-4
    for manifest in manifests:
        assert manifest["metrics"]["held_out_accuracy"] >= 0.95
    shipped, made = (manifest["normalization"]["channels"] for manifest in manifests)
    assert shipped == made
    for network in manifests[0]["networks"]:
        old, new = (
            NetworkRecipe.load(folder / f"{network['name']}.zip") for folder in (recipe_folder(), new_folder)
        )
        assert (old.network, old.seed, old.model, old.kernels) == (
            new.network,
            new.seed,
            new.model,
            new.kernels,
        )
        assert len(old.graph) == len(new.graph)
        for shipped_scale, new_scale in zip(old.scales, new.scales, strict=True):
            tolerance = 1e-5 * np.abs(new_scale).max()
            np.testing.assert_allclose(shipped_scale, new_scale, rtol=1e-3, atol=tolerance)
