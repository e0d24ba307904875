"""The starter ensemble: seven networks for demonstrations and tests, built from a recipe of a few megabytes.

Its backbones are random, so the files contain little besides the output of a bit generator: the graph, one
scale and one bias per channel, and the trained head. The package includes these as a *recipe*
(:mod:`~senoscope.starter.recipe`), from which NumPy rebuilds the ONNX files byte for byte
(:mod:`~senoscope.starter.build`). ``senoscope-train starter --recipe`` creates a new recipe.
"""

from typing import Final

STARTER_NAME: Final = "starter"
