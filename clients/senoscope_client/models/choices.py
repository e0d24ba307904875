"""Fixed choices in requests and results; separate from the data models, so that it imports no pydantic."""

from __future__ import annotations

from typing import Literal

CamMode = Literal["none", "grid", "png"]
"""How much of the Grad-CAM map a message includes."""

SourceKind = Literal["stream", "upload", "file"]
"""A frame of the acquisition PC's stream, a posted stack, or a file: of a watched folder, or classified
without a server."""
