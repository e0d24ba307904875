"""Synthetic fields of view.

The name that programs written for earlier releases import; the code is in `senoscope_client.simulation.synthetic`.
"""

from senoscope_client.simulation.synthetic import synthesize

__all__ = ["synthesize"]
