"""The closed loop with Micro-Manager.

Kept for programs that import this module; the code is in `senoscope_client.acquisition.closed_loop`.
"""

from senoscope_client.acquisition.closed_loop import ClosedLoop

__all__ = ["ClosedLoop"]
