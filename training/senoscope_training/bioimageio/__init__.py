"""An ensemble as a package of bioimage.io."""
