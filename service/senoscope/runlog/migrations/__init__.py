"""Migrations of the run log's schema."""
