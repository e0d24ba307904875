"""The documents that the service sends and answers with."""
