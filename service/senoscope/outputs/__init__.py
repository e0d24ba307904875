"""Outputs of results during a scan: ZeroMQ, the archive, the stage map."""
