"""Messages of the frame stream."""
