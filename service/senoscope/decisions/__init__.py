"""From results to decisions: rules of the user's, and nothing that moves hardware."""
