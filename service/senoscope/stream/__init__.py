"""The acquisition PC's frames, and the series that they belong to."""
