"""Measure deviations of the exported networks from Keras and a gradient tape on synthetic fields of view.

Needs the Keras weights that ``senoscope-train starter --keep-keras DIR`` stores::

    python benchmarks/parity.py models/starter DIR --result benchmarks/results/parity.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from senoscope.engine.manifest import read_manifest
from senoscope_client.simulation.synthetic import synthesize


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("keras", type=Path)
    parser.add_argument("--fovs", type=int, default=8)
    parser.add_argument(
        "--seed", type=int, default=4242, help="seed of the FOVs, which are not used for training"
    )
    parser.add_argument("--result", type=Path)
    arguments = parser.parse_args()

    from senoscope_training.workers.tensorflow import start_tensorflow

    start_tensorflow(2)
    from senoscope_training.export import parity
    from senoscope_training.networks.architectures import backbone_of, build_application
    from senoscope_training.networks.head import Head

    manifest, _ = read_manifest(arguments.model)
    low = np.array([c.low for c in manifest.normalization.channels], np.float32)
    high = np.array([c.high for c in manifest.normalization.channels], np.float32)
    fovs = np.stack([synthesize(arguments.seed, n).pixels for n in range(arguments.fovs)])
    report: dict[str, Any] = {"fovs": arguments.fovs, "seed": arguments.seed, "networks": {}}
    for network in manifest.networks:
        application = build_application(network.name)
        application.load_weights(arguments.keras / f"{network.name}.weights.h5")
        with np.load(arguments.keras / f"{network.name}.head.npz") as kept:
            head = Head(w1=kept["w1"], b1=kept["b1"], w2=kept["w2"], b2=float(kept["b2"]))
        backbone = backbone_of(network.name, application)
        expected = parity.keras_outputs(network.name, backbone, head, fovs, low, high)
        got = parity.onnx_outputs(arguments.model / network.variants[0].file, fovs, low, high)
        deviation = np.abs(got.logit.astype(np.float64) - expected.logit)
        report["networks"][network.name] = figures = {
            "logit_relative": float((deviation / np.abs(expected.logit)).max()),
            "logit_absolute": float(deviation.max()),
            "smallest_logit": float(np.abs(expected.logit).min()),
            "gradcam_of_maximum": parity.compare(got, expected).gradcam,
        }
        print(f"{network.name:20s}", *(f"{name} {value:.1e}" for name, value in figures.items()), flush=True)
    if arguments.result:
        arguments.result.parent.mkdir(parents=True, exist_ok=True)
        arguments.result.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
