"""Setup of TensorFlow: without log output, on the CPU, with a given number of threads."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def start_tensorflow(threads: int, allow_gpu: bool = False) -> None:
    """Import and set up TensorFlow; call this once per process, before anything else imports it.

    Exports use the CPU even if there is a GPU: they are compared with TensorFlow, which must compute in
    float32, but on recent GPUs it computes convolutions in TF32.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if allow_gpu:
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # MobileNet and others warn that 250x300, the paper's size, is not that of their ImageNet weights.
    warnings.filterwarnings("ignore", message=".*`input_shape` is undefined or non-square.*")
    with _native_stderr_closed():
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.constant(0.0)  # starts the runtime, which writes log lines too
    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Discard what C++ code writes to stderr before its log level takes effect; exceptions are raised."""
    sys.stderr.flush()
    original = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(original, 2)
        os.close(null)
        os.close(original)
