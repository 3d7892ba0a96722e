"""What a run shows: progress, tables, figures and the report."""
