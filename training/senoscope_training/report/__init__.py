"""Results of an experiment: metrics, tables, figures, and the report."""
