"""Files that hold secrets, and addresses that only this machine can reach."""
