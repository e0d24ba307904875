"""Labelled data sets: reading, checking, splitting, importing."""
