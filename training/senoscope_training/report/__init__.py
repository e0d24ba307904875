"""What an experiment gave: metrics, tables, figures, one page to publish from."""
