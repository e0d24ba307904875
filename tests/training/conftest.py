"""Fixtures of the training tests."""

from __future__ import annotations

import pytest

from senoscope_training.networks.architectures import register
from support.tiny_backbone import TINY

# Every worker that collects tests imports this file: slow imports are in the fixtures.
register(TINY)


@pytest.fixture(scope="session")
def tensorflow():
    from senoscope_training.workers.tensorflow import start_tensorflow

    start_tensorflow(threads=2)
    import keras
    import tensorflow

    # As in worker processes, because the graph optimiser takes most of the tracing time.
    tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    keras.config.disable_interactive_logging()
    return tensorflow


@pytest.fixture
def quick_report():
    """Write reports of experiments without drawing figures."""
    from support.quick_reports import quick_reports

    with quick_reports():
        yield


@pytest.fixture
def jobs_here(tensorflow, quick_report):
    """Run and export experiments quickly, in this process."""
    from support.jobs_here import jobs_in_this_process

    with jobs_in_this_process():
        yield
