"""Files of secrets, and which addresses are of this machine."""
