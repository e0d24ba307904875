"""HTTP and WebSocket: thin routes over the service, which knows nothing of them."""
