"""The starter ensemble: seven networks for demonstrations and tests, built from a recipe of a few megabytes.

Its backbones are random, so what a file of them holds beyond a bit generator's output is small: the graph,
one scale and one bias per channel, and the trained head. The package ships that as a *recipe*
(:mod:`~senoscope.starter.recipe`), from which NumPy alone rebuilds the ONNX files byte for byte
(:mod:`~senoscope.starter.build`). ``senoscope-train starter --recipe`` makes the recipe anew.
"""

from senoscope.starter.build import STARTER_NAME, StarterError, build_starter
from senoscope.starter.locate import locate_ensemble, require_ensemble

__all__ = ["STARTER_NAME", "StarterError", "build_starter", "locate_ensemble", "require_ensemble"]
