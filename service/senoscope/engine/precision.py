"""Numerical precisions in which an ensemble can be computed."""

from __future__ import annotations

from typing import Final, Literal

FilePrecision = Literal["fp32", "fp16", "int8"]
"""Precision of a network's file."""
Precision = Literal["fp32", "tf32", "fp16", "int8"]
"""Precision of a computation; ``tf32`` computes fp32 files with inputs of convolutions rounded to 11 bits."""
PrecisionChoice = Literal["auto", "fp32", "tf32", "fp16", "int8"]
"""A precision, or ``auto``: the fastest that passes the gate on this machine."""

FILES: Final[dict[Precision, FilePrecision]] = {
    "fp32": "fp32",
    "tf32": "fp32",
    "fp16": "fp16",
    "int8": "int8",
}
"""The files that each precision runs; a network without such a file, or whose file fails, runs in fp32."""
ONLY_ON_REQUEST: Final[frozenset[Precision]] = frozenset({"int8"})
"""Precisions that ``auto`` does not try: most ensembles fail the gate in them."""
