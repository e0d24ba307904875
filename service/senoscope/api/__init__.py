"""HTTP and WebSocket: thin routes over the service, which does not depend on them."""
