"""Coverage-guided fuzzing of the frame stream's `decode`; takes libFuzzer's options and corpus folders."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["senoscope_client", "targets"]):
    from targets import check_wire

if __name__ == "__main__":
    atheris.Setup(sys.argv, check_wire)
    atheris.Fuzz()
