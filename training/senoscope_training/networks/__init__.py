"""Networks and their training: backbones, heads, images that are augmented."""
