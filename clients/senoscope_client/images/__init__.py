"""Files and arrays of images, read as fields of view."""
