"""Migrations of the run log's schema, one module each."""
