"""Prometheus metrics of a running service."""
