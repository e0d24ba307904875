"""The tests of ``plugin.py``, run in a separate process.

Mesa's software OpenGL, which napari draws with here, and TensorFlow contain different versions of LLVM: a
process that loads both crashes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("plugin.py")


@pytest.mark.system("Xvfb")
@pytest.mark.timeout(400)
def test_the_plugin_in_napari(request: pytest.FixtureRequest):
    command = [sys.executable, "-m", "pytest", "-n", "0", "--color=no", str(TESTS)]
    done = subprocess.run(command, cwd=request.config.rootpath, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, "tests failed or did not start: see their output below"
