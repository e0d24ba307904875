"""Decisions on results by the rules of the user. Nothing here moves hardware."""
