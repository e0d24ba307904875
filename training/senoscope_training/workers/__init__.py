"""Worker processes, their progress reports, and the setup of their libraries."""
