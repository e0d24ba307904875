"""Keras on the back end that ``KERAS_BACKEND`` names, deterministic, with as many threads as it was given."""

from __future__ import annotations

import importlib.util
import os

BACKENDS = ("tensorflow", "jax", "torch")


def backend_problem() -> str | None:
    """Why the back end that is asked for cannot be had, or None if it can; imports nothing."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend not in BACKENDS:
        return f"KERAS_BACKEND={backend}: use {', '.join(BACKENDS)}"
    if importlib.util.find_spec(backend) is None:
        return f"KERAS_BACKEND={backend}: {backend} is not installed; pip install {backend}"
    return None


def start_backend(threads: int) -> None:
    """Import and set up Keras; call once per process, before anything else imports it.

    On a CPU the same seed then gives the same numbers. GPUs are used where the back end finds any.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # An import of scikit-learn or OpenCV must not take all cores from the process beside.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    import cv2

    cv2.setNumThreads(0)
    if backend == "tensorflow":
        from senoscope_training.workers.tensorflow import start_tensorflow

        start_tensorflow(threads, allow_gpu=True)
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            # On a CPU the graph optimiser takes a quarter of the time to trace and gains nothing after.
            tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    elif backend == "jax":
        os.environ["XLA_FLAGS"] = " ".join(
            [
                os.environ.get("XLA_FLAGS", ""),
                f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}",
                "--xla_gpu_deterministic_ops=true",
            ]
        ).strip()
    else:
        import torch

        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
    import keras

    keras.config.disable_interactive_logging()
