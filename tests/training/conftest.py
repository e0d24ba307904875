"""Fixtures of the training tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tensorflow():
    from senoscope_training.runtime import start_tensorflow

    start_tensorflow(threads=2)
    import tensorflow

    return tensorflow
