"""Training and export of Senoscope's ensembles, following Sorrentino et al. 2023."""
