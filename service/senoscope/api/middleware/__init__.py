"""Middleware of every request: access, limits of size and time, metrics and traces."""
