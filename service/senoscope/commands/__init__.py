"""The subcommands of ``senoscope``, one module each."""
