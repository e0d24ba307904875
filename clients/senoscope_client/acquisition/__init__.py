"""Connections to acquisition software."""
