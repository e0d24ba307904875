"""Acquisition software that Senoscope is connected to."""
