"""Compare the time of phase 1 on cached features with that through the network, for the same head.

::

    python benchmarks/phase1.py --result benchmarks/results/phase1.json
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mobilenet")
    parser.add_argument("--fovs", type=int, default=40)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--height", type=int, default=250)
    parser.add_argument("--width", type=int, default=300)
    parser.add_argument("--result", type=Path)
    arguments = parser.parse_args()
    from senoscope_training.workers.backend import start_backend

    start_backend(2)
    import keras

    from senoscope.engine.intensity import fit_range
    from senoscope_client.simulation.synthetic import synthesize
    from senoscope_training.networks.augmentation import plan_copies
    from senoscope_training.networks.fitting import FitState, fit
    from senoscope_training.networks.head import (
        Standardization,
        TrainedHead,
        build_head,
        compile_for,
        head_loss,
    )
    from senoscope_training.networks.images import FeatureExamples, ImageExamples, scale_to_images
    from senoscope_training.networks.settings import AugmentationConfig, FrozenPhase, HeadConfig
    from senoscope_training.networks.trainable import TrainableNetwork
    from senoscope_training.networks.weights import WeightsPlan

    height, width = arguments.height, arguments.width
    made = [synthesize(11, n, height=height, width=width) for n in range(arguments.fovs)]
    pixels, labels = np.stack([fov.pixels for fov in made]), np.array([fov.senescent for fov in made])
    images = scale_to_images(pixels, *fit_range(pixels))
    network = TrainableNetwork(arguments.network, WeightsPlan({}), 1, images[:10], HeadConfig())
    held_out = np.arange(arguments.fovs) % 4 == 0
    train, held = (
        ImageExamples(
            images[part],
            labels[part],
            plan_copies(labels[part], height, width, AugmentationConfig(copies=arguments.copies), seed),
            network.preprocess,
        )
        for seed, part in enumerate((~held_out, held_out))
    )
    # The same number of epochs for both, independent of the validation loss.
    phase = FrozenPhase(max_epochs=arguments.epochs, patience=arguments.epochs)
    network.features(images[:1])  # compiled before the measurement
    keras.utils.set_random_seed(1)
    head = build_head(network.feature_size, HeadConfig())
    start = TrainedHead(head.get_weights(), Standardization.identity(network.feature_size), 1, 0, FitState())
    network.fine_tune(start, train, held, FrozenPhase(max_epochs=1), seed=2, frozen=True)

    began = time.perf_counter()
    through, _ = network.fine_tune(start, train, held, phase, seed=2, frozen=True)
    through_s = time.perf_counter() - began

    compile_for(head, phase.learning_rate)
    began = time.perf_counter()
    learnt, judged = (
        FeatureExamples(network.features(e.scaled(np.arange(len(e)))), e.labels) for e in (train, held)
    )
    features_s = time.perf_counter() - began
    fit(
        head,
        learnt,
        lambda: head_loss(head.get_weights(), judged.features, judged.truth, HeadConfig()),
        phase,
        seed=2,
    )
    cached_s = time.perf_counter() - began
    w1, _, w2, _ = head.get_weights()
    difference = max(float(np.abs(through.w1 - w1).max()), float(np.abs(through.w2 - w2.ravel()).max()))
    report = {
        "network": arguments.network,
        "examples": {"train": len(train), "validation": len(held)},
        "epochs": arguments.epochs,
        "through_the_network_s": round(through_s, 2),
        "on_cached_features_s": round(cached_s, 2),
        "of_that_computing_features_s": round(features_s, 2),
        "times_faster": round(through_s / cached_s, 1),
        "largest_difference_of_a_weight": difference,
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=2))
    if arguments.result:
        arguments.result.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
