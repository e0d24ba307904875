"""Compare the engine with seven default ONNX Runtime sessions and with the authors' code, in one process.

Each takes one field of view of raw counts and returns seven probabilities and seven Grad-CAM maps. They are
run alternately, so that other load of the machine affects all of them; the ratio of the medians is the
result::

    python benchmarks/engine_cpu.py models/starter --result benchmarks/results/engine_cpu.json

The authors' code runs Keras' ``predict`` and then a gradient tape, one network after another. It needs the
training extra and some minutes; ``--no-keras`` omits it.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from senoscope import Ensemble
from senoscope.engine.sessions import usable_cores
from senoscope_client.simulation.synthetic import synthesize


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _default_sessions(ensemble: Ensemble, feeds: dict[str, Any]) -> Callable[[], Any]:
    sessions = [
        ort.InferenceSession(
            str(ensemble.directory / network.variants[0].file), providers=["CPUExecutionProvider"]
        )
        for network in ensemble.manifest.networks
    ]
    return lambda: [session.run(None, feeds) for session in sessions]


def _authors_code(ensemble: Ensemble, feeds: dict[str, Any]) -> Callable[[], Any]:
    import tensorflow as tf

    from senoscope_training.export.parity import keras_input
    from senoscope_training.networks.architectures import backbone_of
    from senoscope_training.networks.head import Head, keras_network
    from senoscope_training.networks.weights import load_application, plan_weights

    plan = plan_weights("random", None, ensemble.names)
    rng = np.random.default_rng(0)
    height, width = feeds["image"].shape[2:]
    networks = []
    for network in ensemble.manifest.networks:
        backbone = backbone_of(network.name, load_application(network.name, plan, 0, height, width))
        # Timing does not depend on the weights' values.
        weights = rng.normal(0, 0.1, (network.feature_size, 4)).astype(np.float32)
        head = Head(w1=weights, b1=np.full(4, 0.1, np.float32), w2=np.ones(4, np.float32), b2=0.0)
        networks.append((network.name, keras_network(backbone, head)))

    def run() -> None:
        for name, network in networks:
            image = keras_input(name, feeds["image"], feeds["low"], feeds["high"])
            network.predict(image, verbose=0)
            with tf.GradientTape() as tape:
                activation, logit = network(tf.constant(image), training=False)
            weights = tf.reduce_mean(tape.gradient(logit, activation), axis=(1, 2), keepdims=True)
            tf.nn.relu(tf.reduce_sum(activation * weights, axis=-1)).numpy()

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-keras", action="store_true")
    parser.add_argument("--result", type=Path)
    arguments = parser.parse_args()
    fov = synthesize(1, 0).pixels
    with Ensemble.load(arguments.model, device="cpu") as ensemble:
        bounds = ensemble.model_range
        feeds = {"image": fov[None].astype(np.float32), "low": bounds.low, "high": bounds.high}
        ways: dict[str, Callable[[], Any]] = {
            "engine": lambda: [prediction.map() for prediction in ensemble.predict(fov)],
            "seven default sessions": _default_sessions(ensemble, feeds),
        }
        if not arguments.no_keras:
            ways["authors' way"] = _authors_code(ensemble, feeds)
        took: dict[str, list[float]] = {name: [] for name in ways}
        for call in ways.values():
            call()
        for turn in range(arguments.repeats):
            for name, call in ways.items():
                if name == "authors' way" and turn >= max(3, arguments.repeats // 5):
                    continue  # seconds each
                took[name].append(_timed(call))
        arrangement = ensemble.describe()
    medians = {name: float(np.median(values)) for name, values in took.items()}
    report = {
        "median_ms": {name: round(value, 1) for name, value in medians.items()},
        "minimum_ms": {name: round(min(values), 1) for name, values in took.items()},
        "times_faster_than": {
            name: round(value / medians["engine"], 2) for name, value in medians.items() if name != "engine"
        },
        "repeats": {name: len(values) for name, values in took.items()},
        "arrangement": {key: arrangement[key] for key in ("provider", "workers", "threads_per_worker")},
        "cores": usable_cores(),
        "onnxruntime": ort.__version__,
        "python": platform.python_version(),
    }
    print(json.dumps(report, indent=2))
    if arguments.result:
        arguments.result.parent.mkdir(parents=True, exist_ok=True)
        arguments.result.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
