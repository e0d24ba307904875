"""Options of the engine for command lines; imports none of its packages."""

from __future__ import annotations

from typing import Literal

Device = Literal["auto", "cuda", "cpu"]
