"""The closed loop with Micro-Manager.

For programs that import the name from here; the code is in
`senoscope_client.acquisition.closed_loop`.
"""

from senoscope_client.acquisition.closed_loop import ClosedLoop

__all__ = ["ClosedLoop"]
