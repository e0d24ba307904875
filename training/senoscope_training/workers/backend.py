"""Setup of Keras with the back end ``KERAS_BACKEND``: deterministic, with a given number of threads."""

from __future__ import annotations

import importlib.util
import os

BACKENDS = ("tensorflow", "jax", "torch")


def backend_problem() -> str | None:
    """Return the reason why the requested back end is not available, or None if it is; import nothing."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend not in BACKENDS:
        return f"KERAS_BACKEND={backend} must be one of {', '.join(BACKENDS)}"
    if importlib.util.find_spec(backend) is None:
        return f"KERAS_BACKEND={backend}: {backend} is not installed; pip install {backend}"
    return None


def start_backend(threads: int) -> None:
    """Import and set up Keras; call this once per process, before anything else imports Keras.

    On a CPU the same seed then gives the same results. GPUs are used if the back end finds any.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # scikit-learn and OpenCV must not use the cores of other worker processes.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    import cv2

    cv2.setNumThreads(0)
    if backend == "tensorflow":
        from senoscope_training.workers.tensorflow import start_tensorflow

        start_tensorflow(threads, allow_gpu=True)
        import tensorflow as tf

        if not tf.config.list_physical_devices("GPU"):
            # On a CPU the graph optimiser takes a quarter of the tracing time; training is not faster.
            tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    elif backend == "jax":
        os.environ["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen={str(threads > 1).lower()} "
            "--xla_gpu_deterministic_ops=true"
        ).strip()
    else:
        import torch

        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
    import keras

    keras.config.disable_interactive_logging()
