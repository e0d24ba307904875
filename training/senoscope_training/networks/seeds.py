"""Seeds for everything random, all from one."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: object) -> int:
    """A seed below 2**31 for one purpose, such as ``("fold", 3, "mobilenet", "validation")``.

    It depends on nothing but its arguments: not on what was trained before, nor in which process.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 2**31
