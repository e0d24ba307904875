"""Experiments: training of their units, and the folder with their results."""
