"""Training and export of Senoscope's ensembles, after Sorrentino et al. 2023."""

from senoscope_training.digest import export_code_digest

__all__ = ["export_code_digest"]
