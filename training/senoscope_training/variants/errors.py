"""Errors of the making of variants."""

from __future__ import annotations


class VariantError(Exception):
    """Variants cannot be made, or not of this network; the message has the reason and a remedy."""
