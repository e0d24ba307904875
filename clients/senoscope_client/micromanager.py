"""Frames that Micro-Manager acquires.

For programs that import the name from here; the code is in
`senoscope_client.acquisition.micromanager`.
"""

from senoscope_client.acquisition.micromanager import MdaFrames

__all__ = ["MdaFrames"]
