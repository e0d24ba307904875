"""A napari plugin that shows, while a microscope scans, what a Senoscope service sees."""
