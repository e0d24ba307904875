"""The field of view of the published method, the default of commands and simulations."""

from __future__ import annotations

from typing import Final

PIXEL_SIZE_UM: Final = 0.35
CHANNELS: Final = ("SRS", "TPEF", "Transmission")
HEIGHT: Final = 250
WIDTH: Final = 300
