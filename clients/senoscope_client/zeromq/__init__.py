"""Frames and results over ZeroMQ."""
