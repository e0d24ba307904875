"""The command ``senoscope-train``, with the tests' small architecture registered.

[SENOSCOPE_TEST_NETWORKS=NAME,NAME...] python -m support.train_command ARGUMENT...

The variable sets the networks of the ensemble that ``starter`` builds, with small fields of view.
"""

from __future__ import annotations

import os
import sys

from senoscope_training.cli import main
from senoscope_training.networks.architectures import register
from senoscope_training.starter import ensemble as starter
from support.tiny_backbone import TINY

if __name__ == "__main__":
    register(TINY)
    if "SENOSCOPE_TEST_NETWORKS" in os.environ:
        starter.HEIGHT, starter.WIDTH = 64, 80
        starter.NETWORKS = tuple(os.environ["SENOSCOPE_TEST_NETWORKS"].split(","))
    sys.exit(main())
