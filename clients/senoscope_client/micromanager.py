"""Frames that Micro-Manager acquires.

The name that programs written for earlier releases import; the code is in `senoscope_client.acquisition.micromanager`.
"""

from senoscope_client.acquisition.micromanager import MdaFrames

__all__ = ["MdaFrames"]
