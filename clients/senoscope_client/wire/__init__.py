"""The messages of the frame stream."""
