"""Who may connect: API keys, and what is reachable from other machines."""
