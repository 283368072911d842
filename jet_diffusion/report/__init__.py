"""The report: results with errors and baselines, as tables, Markdown and HTML."""
