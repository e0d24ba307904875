"""Worker processes, what they report, and the libraries that they compute with."""
