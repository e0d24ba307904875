"""What every request passes before a route: access, size, and what is observed of it."""
