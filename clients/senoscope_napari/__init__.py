"""A napari plugin that shows the results of a Senoscope service during a scan."""
