"""Synthetic fields of view.

Kept for programs that import this module; the code is in `senoscope_client.simulation.synthetic`.
"""

from senoscope_client.simulation.synthetic import synthesize

__all__ = ["synthesize"]
