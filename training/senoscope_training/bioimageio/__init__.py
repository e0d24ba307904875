"""Export of an ensemble as a bioimage.io package."""
