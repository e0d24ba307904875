"""A TensorFlow that is quiet, keeps to the CPU, and uses as many threads as it was given."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def start_tensorflow(threads: int, allow_gpu: bool = False) -> None:
    """Import and set up TensorFlow; call once per process, before anything else imports it.

    For exports the CPU it is even where there is a GPU: the reference that they are compared with must be
    float32 throughout, and TensorFlow convolves in TF32 on recent GPUs.
    """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    if allow_gpu:
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # MobileNet and others warn that 250x300 is not the size of their ImageNet weights: it is the paper's.
    warnings.filterwarnings("ignore", message=".*`input_shape` is undefined or non-square.*")
    with _native_stderr_closed():
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.constant(0.0)  # starts the runtime, which has log lines of its own
    tf.get_logger().setLevel("ERROR")
    tf.config.experimental.enable_op_determinism()


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Drop what C++ code writes to stderr before its own log level takes effect; exceptions still pass."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
