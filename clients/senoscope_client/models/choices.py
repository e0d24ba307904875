"""Fixed choices of requests and results, without the data models that use them."""

from __future__ import annotations

from typing import Literal

CamMode = Literal["none", "grid", "png"]
"""How much of the Grad-CAM map a message carries inline."""

SourceKind = Literal["stream", "upload", "file"]
"""A frame of the acquisition PC's stream, a posted stack, or a file classified without a server."""
