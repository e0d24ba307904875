"""Frames that Micro-Manager acquires.

Kept for programs that import this module; the code is in `senoscope_client.acquisition.micromanager`.
"""

from senoscope_client.acquisition.micromanager import MdaFrames

__all__ = ["MdaFrames"]
