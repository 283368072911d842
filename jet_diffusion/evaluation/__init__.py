"""Judge generated jets against real ones and write the report with its pictures."""
