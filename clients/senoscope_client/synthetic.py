"""Synthetic fields of view.

For programs that import the name from here; the code is in
`senoscope_client.simulation.synthetic`.
"""

from senoscope_client.simulation.synthetic import synthesize

__all__ = ["synthesize"]
