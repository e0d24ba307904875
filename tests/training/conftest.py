"""Fixtures of the training tests."""

from __future__ import annotations

import pytest

from senoscope_training.architectures import register
from support.tiny_backbone import TINY

register(TINY)


@pytest.fixture(scope="session")
def tensorflow():
    from senoscope_training.runtime import start_tensorflow

    start_tensorflow(threads=2)
    import tensorflow

    return tensorflow
