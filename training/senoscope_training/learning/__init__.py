"""The paper's procedure: augmentation, two phases, early stopping, hybrid, CNN from scratch, resumption."""
