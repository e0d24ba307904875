"""Where results go while the scan runs: ZeroMQ, the archive, the stage map."""
