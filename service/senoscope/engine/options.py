"""What a user may choose of the engine, without the packages that run it."""

from __future__ import annotations

from typing import Literal

Device = Literal["auto", "cuda", "cpu"]
