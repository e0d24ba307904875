"""Access control: API keys, reachability from other machines, and limits on connections."""
