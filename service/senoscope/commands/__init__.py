"""What the ``senoscope`` command does, a module per subcommand."""
