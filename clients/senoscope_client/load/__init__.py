"""Load on a running service: ``senoscope-client load``."""
