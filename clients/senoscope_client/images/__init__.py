"""Readers of fields of view in image files and arrays."""
