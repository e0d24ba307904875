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

    # As in worker processes: the graph optimiser takes most of the time to trace.
    tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    keras.config.disable_interactive_logging()
    return tensorflow


@pytest.fixture
def quick_report():
    """Experiments end with a report whose figures are not drawn."""
    from support.quick_reports import quick_reports

    with quick_reports():
        yield


@pytest.fixture
def jobs_here(tensorflow, quick_report):
    """Experiments are run and exported in this process, quickly."""
    from support.jobs_here import jobs_in_this_process

    with jobs_in_this_process():
        yield
