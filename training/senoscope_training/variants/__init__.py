"""Variants of an ensemble's networks in lower precisions, and their comparison with fp32."""
