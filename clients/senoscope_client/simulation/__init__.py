"""A simulated microscope, and synthetic fields of view."""
