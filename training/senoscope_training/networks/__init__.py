"""Networks and their training: backbones, heads, augmentation."""
