"""Steps from one schema of the run log to the next."""
