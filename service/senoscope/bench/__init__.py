"""Measurements of a machine: the engine alone, and the real service, wire to wire (``senoscope bench``)."""
