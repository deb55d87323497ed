"""The report: which runs it shows, its tables and figures, and the batch that executes the notebooks."""
