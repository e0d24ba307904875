"""The closed loop with Micro-Manager.

The name that programs written for earlier releases import; the code is in `senoscope_client.acquisition.closed_loop`.
"""

from senoscope_client.acquisition.closed_loop import ClosedLoop

__all__ = ["ClosedLoop"]
