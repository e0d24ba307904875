"""Training and export of Senoscope's ensembles, after Sorrentino et al. 2023."""
