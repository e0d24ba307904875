"""Coverage-guided fuzzing of `images.reader.read_fovs`, as `fuzz_wire` does of the frame stream."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["senoscope_client", "tifffile", "targets"]):
    from targets import check_image

if __name__ == "__main__":
    logging.disable()  # tifffile tells of each damage that it meets
    atheris.Setup(sys.argv, check_image)
    atheris.Fuzz()
