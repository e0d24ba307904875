"""The command ``senoscope-train``, with the tests' small architecture registered.

python -m support.train_command ARGUMENT...
"""

from __future__ import annotations

import sys

from senoscope_training.architectures import register
from senoscope_training.cli import main
from support.tiny_backbone import TINY

if __name__ == "__main__":
    register(TINY)
    sys.exit(main())
