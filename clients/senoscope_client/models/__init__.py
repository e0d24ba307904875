"""Data models of the documents that the service sends and returns."""
