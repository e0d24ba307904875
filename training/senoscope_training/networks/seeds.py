"""Seeds of all random numbers, derived from one seed."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: object) -> int:
    """Derive a seed below 2**31 for a purpose, for example ``("fold", 3, "mobilenet", "validation")``.

    The seed depends only on the arguments, not on the process or on earlier training.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 2**31
